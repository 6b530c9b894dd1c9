"""Rows with a gold answer and a prediction, read and written as a stream."""

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from advdistill_core.errors import InputError
from advdistill_core.rewards.types import Answer

Row = dict[str, Any]

BATCH_ROWS = 5000
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_REMEDY = "Name columns gold and prediction, one object a line (JSONL) or one row each (Parquet)."


def num_rows(path: Path) -> int:
    """How many rows a file has; lines, for JSONL.

    Raises:
        InputError: it is missing, of another kind, or no whole Parquet file.
    """
    if _is_parquet(path):
        return int(_open_parquet(path).metadata.num_rows)
    count, last = 0, b"\n"
    with _open(path) as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


def read_batches(path: Path) -> Iterator[list[tuple[str, Row]]]:
    """Batches of rows, each with its name for messages (`file row 3`).

    Raises:
        InputError: a line is torn or no JSON object; the file and the row are named.
    """
    rows = _parquet_rows(path) if _is_parquet(path) else _json_rows(path)
    batch: list[tuple[str, Row]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def write_batches(path: Path, batches: Iterable[list[Row]]) -> None:
    """Write rows to a file that appears whole or not at all.

    Raises:
        InputError: the file cannot be written, or rows of one Parquet file differ in type.
    """
    is_parquet = _is_parquet(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        if is_parquet:
            _write_parquet(temporary, batches)
        else:
            _write_json(temporary, batches)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            str(path), error.strerror or str(error), "a file that can be written", "Check the folder."
        ) from error
    finally:
        with suppress(OSError):  # a folder that refused the file refuses this too
            temporary.unlink(missing_ok=True)


def to_answer(where: str, row: Row, task: str) -> Answer:
    """The answer in a row.

    `choices` (a list) or `n_choices` (a number) give the options; `source` and
    `truncated` are taken where they are there.

    Raises:
        InputError: `gold` or `prediction` is missing or of a wrong type.
    """
    for name in ("gold", "prediction"):
        if name not in row:
            raise InputError(where, f"the columns {', '.join(map(str, row))}", f"a column {name}", _REMEDY)
    gold, prediction = row["gold"], row["prediction"]
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        gold = str(gold)
    if not isinstance(gold, str):
        raise InputError(f"{where} gold", gold, "a string or a number", _REMEDY)
    if not isinstance(prediction, str):
        raise InputError(f"{where} prediction", prediction, "a string", _REMEDY)
    choices = row.get("choices") or ()
    if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) for choice in choices):
        raise InputError(f"{where} choices", choices, "a list of strings", "Write [a, b].")
    count = row.get("n_choices")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 26):
        raise InputError(f"{where} n_choices", count, "a whole number from 0 to 26", "Mend the row.")
    if not choices and count:
        choices = ("",) * count
    return Answer(
        task, gold, prediction, row.get("truncated") is True, tuple(choices), str(row.get("source") or "")
    )


def _is_parquet(path: Path) -> bool:
    if path.suffix == ".parquet":
        return True
    if path.suffix not in _JSON_SUFFIXES:
        raise InputError(
            str(path),
            path.suffix or "no suffix",
            "a .jsonl or .parquet file",
            "Convert it to JSONL or Parquet.",
        )
    return False


def _open(path: Path) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(
            str(path), error.strerror or str(error), "a file that can be read", "Check the path."
        ) from error


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path} row {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                shown = line[:80].decode(errors="replace").strip()
                raise InputError(
                    where, shown, "one whole JSON object a line in UTF-8", f"Mend the line: {error}."
                ) from error
            if not isinstance(row, dict):
                raise InputError(where, row, "a JSON object", _REMEDY)
            yield where, row


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(str(path), str(error), "a whole Parquet file") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    file = _open_parquet(path)
    number = 0
    try:
        for batch in file.iter_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} row {number + 1}", str(error), "a whole Parquet file") from error


def _write_json(path: Path, batches: Iterable[list[Row]]) -> None:
    with open(path, "wb") as file:
        for batch in batches:
            for row in batch:
                file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def _line(row: Row) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, but an escape
        return json.dumps(row, default=str).encode() + b"\n"


def _write_parquet(path: Path, batches: Iterable[list[Row]]) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for batch in batches:
            try:
                table = pa.Table.from_pylist(batch, schema=writer.schema if writer else None)
                if writer is None:
                    schema = pa.schema(
                        [f if f.type != pa.null() else pa.field(f.name, pa.string()) for f in table.schema]
                    )
                    table = table.cast(schema)
                    writer = pq.ParquetWriter(path, schema, compression="zstd")
            except (pa.ArrowException, UnicodeEncodeError) as error:
                raise InputError(
                    path.name, str(error), "columns of one type each", "Write JSONL instead."
                ) from error
            writer.write_table(table)
        if writer is None:
            names = ("gold", "prediction", "verdict", "extracted")
            writer = pq.ParquetWriter(path, pa.schema([(name, pa.string()) for name in names]))
    finally:
        if writer is not None:
            writer.close()
