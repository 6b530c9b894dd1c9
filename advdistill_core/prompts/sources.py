"""Reading questions: generated families, files, datasets."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advdistill_core.config import PromptSource
from advdistill_core.errors import InputError
from advdistill_core.models.home import sha256
from advdistill_core.prompts import families, files, hub
from advdistill_core.prompts.types import Question
from advdistill_core.store.fingerprint import canonical_json


def precheck(config: PromptSource) -> None:
    """Find what is wrong with a source cheaply, before any model is loaded.

    A file or a folder is read in full, so that a bad row is named now; of families the
    names and parameters are checked, of a Hub data set whether it can be reached.

    Raises:
        InputError: naming the file and the row, or the setting.
    """
    if config.source == "reasoning_gym":
        families.precheck(config)
    elif config.source == "file" or hub.precheck(config):
        distinct = len({question.normalised for question in questions(config)})  # to the last row
        if not distinct:
            where = f"prompts.{'path' if config.source == 'file' else 'dataset'}"
            given = config.path or config.dataset
            raise InputError(where, f"{given}, which is empty", "at least one question", "Add some.")
        check_count(config, distinct)


def check_count(config: PromptSource, available: int) -> None:
    """Refuse a source with fewer distinct questions than are asked for.

    Raises:
        InputError: naming both numbers.
    """
    asked = {name: getattr(config, name, 0) for name in ("num_train", "num_heldout", "num_questions")}
    wanted = {name: count for name, count in asked.items() if count}
    if sum(wanted.values()) > available:
        raise InputError(
            " + ".join(f"prompts.{name}" for name in wanted),
            " + ".join(map(str, wanted.values())),
            f"at most {available}, the distinct questions of {config.path or config.dataset}",
            "Ask for fewer, or add questions.",
        )


def questions(config: PromptSource) -> Iterator[Question]:
    """All questions of a file or a dataset, as they come.

    Raises:
        InputError: an id occurs twice, which would mix two questions' groups.
    """
    given = files.read(Path(config.path or ""), config) if config.source == "file" else hub.read(config)
    ids: set[str] = set()
    for number, question in enumerate(given, 1):
        if config.id_column and question.prompt_id in ids:
            where = f"{config.path or config.dataset} row {number}, {config.id_column}"
            raise InputError(where, question.prompt_id, "an id that occurs once", "Mend or remove a row.")
        ids.add(question.prompt_id)
        yield question


def identity(config: PromptSource) -> dict[str, Any]:
    """What decides the questions: a file by its content, never by its path."""
    facts = config.identity()
    if config.source == "file":
        assert config.path is not None
        path = files.existing(Path(config.path))
        facts["path"] = {"name": path.name, "sha256": sha256(path)}
    elif config.source == "datasets":
        facts["dataset"] = hub.identity(config)
    else:
        facts["reasoning_gym"] = families.version()
    return facts


def spread(key: str, seed: int) -> bytes:
    """A pseudo-random but reproducible place in an order."""
    return hashlib.blake2b(canonical_json([seed, key]).encode(), digest_size=16).digest()
