"""What training needs beside the weighted responses: wrong ones, and questions kept back."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from advdistill_core.config import DistillConfig
from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import StageError
from advdistill_core.store import Artifact
from advdistill_core.training.data import PromptIds, encode_completion
from advdistill_core.training.heldout import HeldOut, Question
from advdistill_core.training.paired import common_prefix
from advdistill_core.training.rows import Group, Row
from advdistill_core.weighting.negatives import negative_weights

Record = dict[str, Any]


def read_paired(
    inputs: Mapping[str, Artifact], tokenizer: Any, config: StudentConfig, kept_back: frozenset[str]
) -> list[Group]:
    """Groups with right responses that are trained on and wrong ones, for the second stage.

    Args:
        inputs: `prompts`, `responses`, `rewards` and `weights`.

    Raises:
        StageError: the rewards are not given, or are not those of the responses.
    """
    if "rewards" not in inputs:
        raise StageError("student.negatives: got no rewards, expected those that tell right from wrong.")
    prompt_of, found = PromptIds(inputs["prompts"], tokenizer), []
    for name, records in groupby(_joined(inputs), key=lambda r: r["prompt_id"]):
        if name in kept_back:
            continue
        rows = _rows(list(records), tokenizer, config.max_seq_tokens - len(prompt_of[name]))
        if any(r.weight for r in rows) and any(r.negative for r in rows):
            found.append(Group(name, prompt_of[name], rows))
    return found


def _rows(records: list[Record], tokenizer: Any, room: int) -> tuple[Row, ...]:
    """The right rows with weight and the wrong ones with a negative weight that fit."""
    right = np.array([r["verdict"] == "correct" for r in records])
    advantage = np.array([np.nan if r["advantage"] is None else r["advantage"] for r in records])
    negative = negative_weights(advantage, right)
    tokens = [encode_completion(tokenizer, r["text"], r["finish_reason"] == "stop") for r in records]
    siblings = [t for t, correct in zip(tokens, right, strict=True) if correct]
    rows = []
    for record, completion, correct, v in zip(records, tokens, right, negative, strict=True):
        weight = max(record["weight"] * record["prompt_weight"], 0.0) if correct else 0.0
        v = float(v) * record["prompt_weight"]
        if completion and len(completion) <= room and (weight or v):
            masked = max(common_prefix(completion, other) for other in siblings) if v else 0
            rows.append(Row(completion, weight, v, masked))
    return tuple(rows)


def _joined(inputs: Mapping[str, Artifact]) -> Iterator[Record]:
    """Responses with their verdicts and weights, which the stages keep in one order."""
    columns = {
        "responses": ["prompt_id", "sample_id", "text", "finish_reason"],
        "rewards": ["prompt_id", "sample_id", "verdict"],
        "weights": ["prompt_id", "sample_id", "advantage", "weight", "prompt_weight"],
    }
    streams = [_records(inputs[name], wanted) for name, wanted in columns.items()]
    for together in zip(*streams, strict=True):
        keys = {(r["prompt_id"], r["sample_id"]) for r in together}
        if len(keys) > 1:
            raise StageError(f"rows {sorted(keys)}: got different keys, expected one in all tables.")
        yield {name: value for record in together for name, value in record.items()}


def _records(artifact: Artifact, columns: list[str]) -> Iterator[Record]:
    for table in artifact.tables():
        for batch in table.select(columns).to_batches(max_chunksize=8192):
            yield from batch.to_pylist()


def read_heldout(
    prompts: Artifact,
    tokenizer: Any,
    config: DistillConfig,
    kept_back: frozenset[str],
    groups: list[Group],
) -> HeldOut | None:
    """The questions kept back, and their weighted responses; None where none are."""
    if not kept_back:
        return None
    wanted = ["prompt_id", "task", "reference_answer", "choices", "source"]
    prompt_of, questions = PromptIds(prompts, tokenizer), []
    for table in prompts.tables("train"):
        for row in table.select(wanted).to_pylist():
            if row["prompt_id"] in kept_back:
                text = prompt_of.text(row["prompt_id"])
                rest = (row["task"], row["reference_answer"], tuple(row["choices"]), row["source"])
                questions.append(Question(row["prompt_id"], text, *rest))
    return HeldOut(tuple(questions), tuple(groups), config.rewards)
