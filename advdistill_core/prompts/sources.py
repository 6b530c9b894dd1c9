"""Reading questions: generated families, files, datasets."""

import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from advdistill_core.config import PromptSource
from advdistill_core.errors import InputError
from advdistill_core.models.home import sha256
from advdistill_core.prompts import families, files, hub
from advdistill_core.prompts.types import Question
from advdistill_core.store.fingerprint import canonical_json

_WRAPPED = re.compile(r"\\boxed\{(?P<box>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|\$(?P<dollars>[^$]+)\$")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(\D|$))")


def precheck(config: PromptSource) -> None:
    """Find what is wrong with a source cheaply, before any model is loaded.

    A file or a folder is read in full, so that a bad row is named now; of families the names,
    parameters and, up to some thousands, the questions are checked, of a Hub data set whether
    it can be reached.

    Raises:
        InputError: naming the file and the row, or the setting.
    """
    if config.source == "reasoning_gym":
        families.precheck(config)
    elif config.source == "file" or hub.precheck(config):
        distinct = len(Distinct(config).questions)  # to the last row
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


class Distinct:
    """The questions of a file or a dataset, each once: the first of those that repeat it.

    Args:
        config: where they come from.

    Attributes:
        questions: by their normalised text.
        total: how many there are with those that repeat.
        contradictions: of a dataset, the repeated questions whose answer is another one.

    Raises:
        InputError: a question of a file occurs with two answers. A dataset of the Hub is not
            the user's to mend, so there the first answer counts.
    """

    def __init__(self, config: PromptSource) -> None:
        self.questions: dict[str, Question] = {}
        self.total = 0
        self.contradictions: list[str] = []
        for question in questions(config):
            self.total += 1
            first = self.questions.setdefault(question.normalised, question)
            if first is question or not _contradict(first, question):
                continue
            shown = first.text.strip() if len(first.text) < 80 else f"{first.text.strip()[:77]}..."
            answers = f"the answers {first.reference_answer} and {question.reference_answer}"
            if config.source == "file":
                where = f'{Path(config.path or "").name}, question "{shown}"'
                raise InputError(where, answers, "one answer to a question", "Mend or remove a row.")
            self.contradictions.append(f'"{shown}" has {answers}')


def _contradict(one: Question, other: Question) -> bool:
    """Whether the very same question has another answer; upper case can be what is asked about."""
    if one.text.strip() != other.text.strip() or one.choices != other.choices:
        return False
    first, second = (_bare(q.reference_answer) for q in (one, other))
    if first == second:
        return False
    try:
        return Decimal(first) != Decimal(second)  # 5 and 5.0 are one answer
    except InvalidOperation:
        return True


def _bare(answer: str) -> str:
    """An answer without a solution before it, as GSM8K has one, and without its wrapping."""
    text = " ".join(answer.rpartition("####")[2].casefold().split())
    while wrapped := _WRAPPED.fullmatch(text):
        text = (wrapped["box"] or wrapped["dollars"] or "").strip()
    return _THOUSANDS.sub("", text)


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
