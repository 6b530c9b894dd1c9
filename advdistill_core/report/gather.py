"""A finished run's tables, joined: groups of graded and weighted responses, questions, scores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from advdistill_core.errors import ArtifactError
from advdistill_core.rewards.types import UNDECIDED
from advdistill_core.store import Artifact

_BATCH_ROWS = 8192
_RESPONSE = ["prompt_id", "sample_id", "text", "finish_reason", "num_tokens"]
_REWARD = ["prompt_id", "sample_id", "verdict", "extracted", "truncated", "format", "tags", "reward"]
_WEIGHT = ["prompt_id", "sample_id", "advantage", "weight", "prompt_weight", "merged_into"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A question as the reader sees it.

    Args:
        system: the system message, if there is one.
        text: the other messages, a blank line apart.
        reference: the reference answer.
    """

    id: str
    system: str
    text: str
    reference: str
    source: str


@dataclass(frozen=True)
class Group:
    """A prompt with its k responses, each with its reward and weight columns."""

    question: Question
    responses: list[Row]

    @property
    def num_correct(self) -> int:
        return sum(r["verdict"] == "correct" for r in self.responses)

    @property
    def kind(self) -> str:
        """mixed, all_correct, all_wrong or ungradable, over the responses with a verdict."""
        gradable = sum(r["verdict"] not in UNDECIDED for r in self.responses)
        if not gradable:
            return "ungradable"
        if self.num_correct == gradable:
            return "all_correct"
        return "mixed" if self.num_correct else "all_wrong"


def questions(prompts: Artifact, split: str) -> dict[str, Question]:
    """The questions of a split by id, in order."""
    found = {}
    for table in prompts.tables(split):
        for row in table.select(["prompt_id", "messages", "reference_answer", "source"]).to_pylist():
            texts = [m["content"] for m in row["messages"] if m["role"] != "system"]
            system = [m["content"] for m in row["messages"] if m["role"] == "system"]
            found[row["prompt_id"]] = Question(
                row["prompt_id"],
                "\n\n".join(system),
                "\n\n".join(texts),
                row["reference_answer"],
                row["source"],
            )
    return found


def groups(asked: Mapping[str, Question], inputs: Mapping[str, Artifact]) -> Iterator[Group]:
    """The groups of the run, in order, joined from responses, rewards and weights.

    Raises:
        ArtifactError: the three tables do not hold the same rows in the same order, or answer
            a prompt that was not asked.
    """
    for prompt_id, rows in groupby(_joined(inputs), key=lambda row: row["prompt_id"]):
        if prompt_id not in asked:
            raise ArtifactError(
                f"response of prompt {prompt_id}: got an unknown prompt, expected one of load."
            )
        yield Group(asked[prompt_id], list(rows))


def _joined(inputs: Mapping[str, Artifact]) -> Iterator[Row]:
    streams = [
        _rows(inputs["responses"], _RESPONSE),
        _rows(inputs["rewards"], _REWARD),
        _rows(inputs["weights"], _WEIGHT),
    ]
    for row, reward, weight in zip(*streams, strict=True):
        keys = {(r["prompt_id"], r["sample_id"]) for r in (row, reward, weight)}
        if len(keys) > 1:
            raise ArtifactError(f"rows {sorted(keys)}: got different keys, expected one in all three tables.")
        yield {**row, **reward, **weight}


def _rows(artifact: Artifact, columns: list[str]) -> Iterator[Row]:
    for table in artifact.tables():
        for batch in table.select(columns).to_batches(max_chunksize=_BATCH_ROWS):
            yield from batch.to_pylist()


def scores(artifact: Artifact | None) -> list[Row]:
    """All rows of a scores table; none where nothing was evaluated."""
    if artifact is None:
        return []
    return [row for table in artifact.tables() for row in table.to_pylist()]


def training_log(student: Artifact) -> list[Row]:
    """Steps with their loss, learning rate and gradient norm."""
    return [row for table in student.tables("train_log") for row in table.to_pylist()]
