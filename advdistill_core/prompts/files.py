"""Questions from a JSONL, Parquet or CSV file, with the row named when one is wrong."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from advdistill_core.config import PromptSource
from advdistill_core.errors import InputError
from advdistill_core.prompts.types import Question, content_id

Rows = Iterator[tuple[int, Mapping[str, Any]]]


def existing(path: Path) -> Path:
    """The file, if it is one that can be read.

    Raises:
        InputError: it is missing, a folder, not ours to read, or of an unknown kind.
    """
    path = path.expanduser()
    if os.path.isdir(path):
        raise InputError("prompts.path", str(path), "a file, not a folder", "Name a file in it.")
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        remedy = "Check the path" + ("." if path.is_absolute() else f"; looked for at {path.absolute()}.")
        raise InputError("prompts.path", str(path), "a file that exists", remedy) from error
    except OSError as error:
        problem = f"{path} ({error.strerror})"
        raise InputError("prompts.path", problem, "a file that can be read", "Check its rights.") from error
    if path.suffix not in _READERS:
        raise InputError("prompts.path", str(path), f"one of {', '.join(_READERS)}", "Convert it.")
    return path


def read(path: Path, config: PromptSource) -> Iterator[Question]:
    """Read the questions of a file in order.

    Raises:
        InputError: naming the file and the row (counted from 1, a CSV's header apart).
    """
    path = existing(path)
    for number, row in _READERS[path.suffix](path):
        yield to_question(row, config, f"{path.name} row {number}", path.name)


def to_question(row: Mapping[str, Any], config: PromptSource, where: str, source: str) -> Question:
    """Map a row's columns.

    Args:
        where: the row, for messages.
        source: what the prompts table calls its origin.

    Raises:
        InputError: a mapped column is missing, empty or of the wrong type.
    """
    text = _text(row, config.question_column, "prompts.question_column", where)
    answer = _text(row, config.answer_column, "prompts.answer_column", where, "a reference answer")
    choices: tuple[str, ...] = ()
    if config.choices_column:
        given = _value(row, config.choices_column, "prompts.choices_column", where)
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise InputError(
                f"{where}, column {config.choices_column}", given, "a list of options", "Write [a, b]."
            )
        choices = tuple(str(choice) for choice in given)
    if config.id_column:
        name = _text(row, config.id_column, "prompts.id_column", where)
    else:
        name = content_id("\n".join((text, *choices)), answer)
    return Question(name, text, answer, choices, str(row.get("source") or source))


def _value(row: Mapping[str, Any], column: str, setting: str, where: str) -> Any:
    if column not in row:
        known = ", ".join(str(name) for name in row)
        raise InputError(f"{where}, column {column}", "no such column", f"one of {known}", f"Set {setting}.")
    return row[column]


def _text(row: Mapping[str, Any], column: str, setting: str, where: str, what: str = "a text") -> str:
    value = _value(row, column, setting, where)
    if value is None or isinstance(value, (dict, list)) or not str(value).strip():
        raise InputError(f"{where}, column {column}", value, what, "Mend or remove the row.")
    return str(value)


def _jsonl(path: Path) -> Rows:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                shown = line[:60].decode(errors="replace")
                raise InputError(
                    f"{path.name} row {number}", shown, "a JSON object in UTF-8", f"Mend the line: {error}."
                ) from error
            if not isinstance(row, dict):
                raise InputError(
                    f"{path.name} row {number}", row, "a JSON object", "Write one object a line."
                )
            yield number, row


def _csv(path: Path) -> Rows:
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            for number, row in enumerate(csv.DictReader(file, strict=True), 1):
                if None in row:  # where values beyond the header end up
                    raise InputError(
                        f"{path.name} row {number}",
                        f"{len(row) - 1 + len(row[None])} values",
                        f"{len(row) - 1}, as many as the header has names",
                        "Put values with commas in quotes.",
                    )
                if any("\0" in value for value in row.values() if value):
                    raise csv.Error(f"line contains NUL in row {number}")
                yield number, row
        except (csv.Error, UnicodeDecodeError) as error:
            problem = f"{path.name} ({error})"
            raise InputError(
                "prompts.path", problem, "a CSV file in UTF-8 with a header", "Save it as such."
            ) from error


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            "prompts.path", f"{path.name} ({error})", "a whole Parquet file", "Copy or write it again."
        ) from error


_READERS = {".jsonl": _jsonl, ".parquet": _parquet, ".csv": _csv}
