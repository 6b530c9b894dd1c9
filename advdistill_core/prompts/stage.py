"""The stage `load`: questions from their source, split into training and held-out ones."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa

from advdistill_core.config import DistillConfig, PromptsConfig
from advdistill_core.progress import Event, Progress
from advdistill_core.prompts import families, sources
from advdistill_core.prompts.types import Question, row
from advdistill_core.store import Artifact, ArtifactWriter
from advdistill_core.store.tables import PROMPTS, from_rows

_BATCH_ROWS = 10_000


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The questions depend on a file's content, not on where it lies."""
    return {"prompts": sources.identity(config.prompts)}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Write `train-*.parquet` and `heldout-*.parquet`; no question is in both or twice.

    Raises:
        InputError: the source is wrong or has too few distinct questions.
    """
    prompts = config.prompts
    progress(Event(stage="load", done=0, total=prompts.num_train + prompts.num_heldout, unit="prompts"))
    if prompts.source == "reasoning_gym":
        train, heldout, dropped = _generated(prompts)
    else:
        train, heldout, dropped = _stored(prompts, progress)
    for split, questions in (("train", train), ("heldout", heldout)):
        out.write_tables(_tables(questions, prompts, split), prefix=split)
    out.note(metrics={"num_train": len(train), "num_heldout": len(heldout), "repeated_questions": dropped})
    done = len(train) + len(heldout)
    progress(Event(stage="load", done=done, total=done, unit="prompts"))


def _generated(config: PromptsConfig) -> tuple[list[Question], list[Question], int]:
    train, heldout = families.split(config)
    return _shuffled(train, config.seed), _shuffled(heldout, config.seed), 0


def _stored(config: PromptsConfig, progress: Progress) -> tuple[list[Question], list[Question], int]:
    """Held-out questions first, so that asking for more training ones leaves them as they are."""
    found = sources.Distinct(config)
    if found.contradictions:
        text = (
            f"{len(found.contradictions)} question(s) occur again with another answer, the first of which "
            f"counts: {found.contradictions[0]}"
        )
        progress(Event(stage="load", done=0, total=0, unit="prompts", message=text))
    sources.check_count(config, len(found.questions))
    wanted = config.num_train + config.num_heldout
    order = _shuffled(list(found.questions.values()), config.seed)
    dropped = found.total - len(found.questions)
    return order[config.num_heldout : wanted], order[: config.num_heldout], dropped


def _shuffled(questions: list[Question], seed: int) -> list[Question]:
    return sorted(questions, key=lambda question: sources.spread(question.normalised, seed))


def _tables(questions: Iterable[Question], config: PromptsConfig, split: str) -> Iterator[pa.Table]:
    for chunk in _batched(questions):
        yield from_rows([row(question, config, split) for question in chunk], PROMPTS)


def _batched(questions: Iterable[Question]) -> Iterator[tuple[Question, ...]]:
    rest = iter(questions)
    while chunk := tuple(islice(rest, _BATCH_ROWS)):
        yield chunk
