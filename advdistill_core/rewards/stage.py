"""The stage `verify`: responses become rewards."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ArtifactError, ErrorRateError, StageError
from advdistill_core.progress import Event, Progress
from advdistill_core.rewards import registry
from advdistill_core.rewards.grader import Grader
from advdistill_core.rewards.rubric import score
from advdistill_core.rewards.types import UNDECIDED, Answer, Graded
from advdistill_core.store import Artifact, ArtifactWriter, tables

_SHARD_ROWS = 5000
_DECIDING = ("math-verify", "latex2sympy2_extended", "sympy", "reasoning-gym")  # distributions
_PROMPT_COLUMNS = ["prompt_id", "task", "reference_answer", "choices", "source"]
_RESPONSE_COLUMNS = ["prompt_id", "sample_id", "text", "finish_reason", "num_tokens"]


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Verdicts depend on the versions of what parses, computes and scores too.

    Of the installed verifiers only the one of the questions' task decides: installing
    another must not grade again.
    """
    found = {name: version(name) for name in _DECIDING} | registry.versions(_task(config, params))
    return {"verifiers": found}


def _task(config: DistillConfig, params: Mapping[str, Any]) -> str | None:
    """The task of all questions of a set, the prompts' without one; None if it is not known."""
    if "set" not in params:
        return config.prompts.task
    return next((chosen.task for chosen in config.evaluation.sets if chosen.name == params["set"]), None)


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Grade all responses and score them by the rubric.

    Raises:
        ErrorRateError: more answers than `rewards.max_error_frac` ended in timeout or
            error. What was graded stays; the next attempt tries only those again.
        StageError: there is no prompt with a reference answer that can be graded.
    """
    prompts = _prompts(inputs["prompts"])
    total = inputs["responses"].manifest.rows
    with Grader(config.rewards) as grader:
        ungradable = grader.check_references(prompts)
        if prompts and len(ungradable) == len(prompts):
            raise StageError(
                f"stage verify: got no reference answer that can be graded ({len(prompts)} prompts, "
                f"e.g. {ungradable[0]}), expected some. Check prompts.answer_column and prompts.task."
            )
        work = _Verification(config, grader, prompts, frozenset(ungradable), out, progress, total)
        out.write_tables(work.shards(inputs["responses"]))
    out.note(
        metrics={
            "verdicts": dict(sorted(work.verdicts.items())),
            "truncated": work.truncated,
            "ungradable_prompts": ungradable,
            "ungradable_responses": work.ungradable_responses,
            "failed_responses": work.failed_responses,
            "error_frac": work.error_frac(),
        }
    )
    work.check_error_rate()


def _prompts(artifact: Artifact) -> dict[str, Answer]:
    """For each training prompt an answer without text."""
    found = {}
    for part in artifact.tables("train"):
        for row in part.select(_PROMPT_COLUMNS).to_pylist():
            # Of tasks and sources there are a few; a copy for each prompt would be a third of this table.
            task, source = sys.intern(row["task"]), sys.intern(row["source"])
            found[row["prompt_id"]] = Answer(
                task, row["reference_answer"], "", False, tuple(row["choices"]), source
            )
    return found


class _Verification:
    """One pass over the responses, a shard at a time, so that memory stays flat."""

    def __init__(
        self,
        config: DistillConfig,
        grader: Grader,
        prompts: Mapping[str, Answer],
        ungradable: frozenset[str],
        out: ArtifactWriter,
        progress: Progress,
        total: int,
    ) -> None:
        self.rewards, self.grader, self.prompts, self.ungradable = config.rewards, grader, prompts, ungradable
        self.out, self.progress, self.total = out, progress, total
        self.verdicts: Counter[str] = Counter()
        self.truncated = self.ungradable_responses = self.failed_responses = 0
        self.undecided = self.done = 0

    def shards(self, responses: Artifact) -> Iterator[pa.Table]:
        number = 0
        for part in responses.tables():
            for start in range(0, part.num_rows, _SHARD_ROWS):
                rows = part.select(_RESPONSE_COLUMNS).slice(start, _SHARD_ROWS).to_pylist()
                table = self._shard(f"shard-{number:06d}", rows)
                number += 1
                self._count(table, [row["finish_reason"] for row in rows])
                yield table

    def _shard(self, key: str, rows: list[dict[str, Any]]) -> pa.Table:
        """A shard as an earlier attempt left it, its timeouts and errors tried again, or new."""
        kept = self.out.read_shard(key)
        before: list[dict[str, Any]] = kept.to_pylist() if kept is not None else []
        if [_id(row) for row in before] != [_id(row) for row in rows]:
            before = []
        again = [
            index
            for index, row in enumerate(rows)
            if not before or (before[index]["verdict"] in UNDECIDED and self._is_gradable(row))
        ]
        if before and not again:
            assert kept is not None
            return kept
        graded = before or [{} for _ in rows]
        for index, row in zip(again, self._grade([rows[i] for i in again]), strict=True):
            graded[index] = row
        table = tables.from_rows(graded, tables.REWARDS)
        self.out.write_shard(key, table)
        return table

    def _grade(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        asked = [index for index, row in enumerate(rows) if self._is_gradable(row)]
        answers = [
            self.prompts[rows[index]["prompt_id"]]._replace(
                text=rows[index]["text"], truncated=rows[index]["finish_reason"] == "length"
            )
            for index in asked
        ]
        verdicts = dict(zip(asked, self.grader.grade(answers), strict=True))
        graded = []
        for index, row in enumerate(rows):
            verdict, extracted = verdicts.get(index, Graded("error"))
            truncated = row["finish_reason"] == "length"
            graded.append(
                {
                    "prompt_id": row["prompt_id"],
                    "sample_id": row["sample_id"],
                    "verdict": verdict,
                    "extracted": None if extracted is None else extracted.encode(errors="replace").decode(),
                    "truncated": truncated,
                    **score(self.rewards, verdict, truncated, row["text"], row["num_tokens"]),
                }
            )
        return graded

    def _is_gradable(self, row: Mapping[str, Any]) -> bool:
        if row["prompt_id"] not in self.prompts:
            raise ArtifactError(
                f"response {row['prompt_id']}/{row['sample_id']}: got a prompt_id that is not among the "
                "training prompts, expected one of them."
            )
        return row["prompt_id"] not in self.ungradable and row["finish_reason"] != "error"

    def _count(self, table: pa.Table, finish_reasons: list[str]) -> None:
        rows = table.select(["prompt_id", "verdict", "truncated"]).to_pylist()
        for row, finish_reason in zip(rows, finish_reasons, strict=True):
            self.verdicts[row["verdict"]] += 1
            self.truncated += row["truncated"]
            if row["prompt_id"] in self.ungradable:
                self.ungradable_responses += 1
            elif finish_reason == "error":  # the teacher failed, not the verification
                self.failed_responses += 1
            else:
                self.undecided += row["verdict"] in UNDECIDED
        self.done += table.num_rows
        self.progress(
            Event(
                stage="verify",
                done=self.done,
                total=self.total,
                unit="responses",
                figures={
                    "correct": self.verdicts["correct"] / max(1, self.done),
                    "undecided": self.undecided / max(1, self.done),
                },
            )
        )

    def error_frac(self) -> float:
        """Share of what was to be graded about which nothing is known.

        Neither responses to ungradable prompts nor requests that failed were to be graded.
        """
        return self.undecided / max(1, self.done - self.ungradable_responses - self.failed_responses)

    def check_error_rate(self) -> None:
        if self.error_frac() > self.rewards.max_error_frac:
            raise ErrorRateError(
                f"stage verify: got {self.error_frac():.2%} of the answers in timeout or error, "
                f"expected at most {self.rewards.max_error_frac:.2%} (rewards.max_error_frac). "
                "Run again when the machine is less busy: only those are graded again. "
                "Or raise rewards.timeout_s or rewards.memory_bytes: all are graded again."
            )


def _id(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["prompt_id"], row["sample_id"]
