"""The stage `generate`: k sampled responses of the teacher to every training prompt."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyarrow as pa

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ErrorRateError, StageError
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter, fingerprint
from advdistill_core.store.tables import RESPONSES, from_rows
from advdistill_core.teachers.backends import model_identity, open_teacher
from advdistill_core.teachers.journal import Journal
from advdistill_core.teachers.protocol import (
    Request,
    Response,
    Sampling,
    Teacher,
    request_hash,
    response_seed,
)

Row = dict[str, Any]


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Responses depend on the model's content, not on the name or folder it goes by."""
    return {"teacher": {**config.teacher.identity(), "model": model_identity(config.teacher)}}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Generate shard by shard; a shard that an earlier attempt finished is taken as it is.

    Raises:
        StageError: there is no training prompt.
        ErrorRateError: more requests than `teacher.max_error_frac` failed.
    """
    prompts = [
        row
        for part in inputs["prompts"].tables("train")
        for row in part.select(["prompt_id", "messages"]).to_pylist()
    ]
    if not prompts:
        raise StageError("stage generate: got no training prompt, expected at least one.")
    work = _Generation(config, out, progress, prompts)
    try:
        out.write_tables(work.shards())
    finally:
        work.close()
    total = max(1, work.done)
    out.note(
        tokens={"generated": work.tokens},
        metrics={
            "truncated_frac": work.truncated / total,
            "error_frac": work.errors / total,
            "resumed_responses": work.resumed,
        },
    )


class _Generation:
    """One pass over the prompts; the model is loaded when the first response is missing."""

    def __init__(
        self, config: DistillConfig, out: ArtifactWriter, progress: Progress, prompts: Sequence[Row]
    ) -> None:
        self.teacher, self.out, self.progress, self.prompts = config.teacher, out, progress, prompts
        self.sampling = Sampling(
            self.teacher.temperature, self.teacher.top_p, self.teacher.top_k, self.teacher.max_new_tokens
        )
        self.identity = model_identity(self.teacher)
        self.done = self.resumed = self.tokens = self.truncated = self.errors = 0
        self._loaded: Teacher | None = None
        # An endpoint's responses are kept one by one: they cost money and do not repeat. A
        # local model gives the same shard again, in the same batches.
        self.by_response = self.teacher.backend == "openai"

    def shards(self) -> Iterator[pa.Table]:
        size = self.teacher.shard_size
        for start in range(0, len(self.prompts), size):
            prompts = self.prompts[start : start + size]
            # Named by its prompts: another shard size must not take it for its own.
            key = "shard-" + fingerprint("shard", "1", {"ids": [p["prompt_id"] for p in prompts]}, {})
            table = self.out.read_shard(key)
            if table is None:
                rows = self._generate(key, prompts)
                table = from_rows(rows, RESPONSES)
                # What an endpoint refused today it may answer on the next attempt.
                if not (self.by_response and any(row["finish_reason"] == "error" for row in rows)):
                    self.out.write_shard(key, table)
            else:
                self.resumed += table.num_rows
            self._count(table)
            self._bound_errors()
            yield table

    def _bound_errors(self) -> None:
        """Stop as soon as too many have failed, rather than after asking for all of them."""
        total = len(self.prompts) * self.teacher.k
        if self.errors > self.teacher.max_error_frac * total:
            raise ErrorRateError(
                f"stage generate: got {self.errors} failed requests of {total}, expected at most "
                f"{self.teacher.max_error_frac:.1%} (teacher.max_error_frac)."
            )

    def _generate(self, key: str, prompts: Sequence[Row]) -> list[Row]:
        """Rows in the order of prompts and samples."""
        teacher = self._load()
        rendered = [teacher.render(prompt["messages"]) for prompt in prompts]
        hashes = [request_hash(self.identity, text, self.sampling) for text in rendered]
        with self._journal(key) as journal:
            rows = self._kept(journal, prompts, hashes) if journal else {}
            self.resumed += len(rows)
            requests = self._requests(prompts, rendered, set(rows))
            finished_tokens = sum(row["num_tokens"] for row in rows.values())

            def tell(tokens: int) -> None:
                self._tell(len(rows), finished_tokens + tokens)

            for response in teacher.generate(requests, self.sampling, tell):
                row = self._row(response, prompts[response.index], hashes[response.index])
                if journal and response.finish_reason != "error":
                    journal.append(row)
                rows[response.index, response.sample_id] = row
        if len(rows) != len(prompts) * self.teacher.k:
            raise StageError(
                f"stage generate: got {len(rows)} responses, expected {self.teacher.k} to each of "
                f"{len(prompts)} prompts. The teacher left some out without an error."
            )
        return [rows[place] for place in sorted(rows)]

    def _journal(self, key: str) -> AbstractContextManager[Journal | None]:
        if not self.by_response:
            return nullcontext()
        return Journal(self.out.work_folder("responses") / f"{key}.jsonl")

    def _kept(
        self, journal: Journal, prompts: Sequence[Row], hashes: Sequence[str]
    ) -> dict[tuple[int, int], Row]:
        """Responses of an earlier attempt to exactly these requests."""
        places = {(p["prompt_id"], h): i for i, (p, h) in enumerate(zip(prompts, hashes, strict=True))}
        return {
            (places[row["prompt_id"], row["request_hash"]], row["sample_id"]): row
            for row in journal.read()
            if (row["prompt_id"], row["request_hash"]) in places and row["sample_id"] < self.teacher.k
        }

    def _requests(
        self, prompts: Sequence[Row], rendered: Sequence[str], kept: Collection[tuple[int, int]]
    ) -> list[Request]:
        """What is still to be asked."""
        requests = []
        for i, (prompt, text) in enumerate(zip(prompts, rendered, strict=True)):
            missing = [s for s in range(self.teacher.k) if (i, s) not in kept]
            samples = tuple((s, self._seed(prompt, s)) for s in missing)
            requests += [Request(i, text, samples)] if samples else []
        return requests

    def _row(self, response: Response, prompt: Row, hash_: str) -> Row:
        return {
            "prompt_id": prompt["prompt_id"],
            "sample_id": response.sample_id,
            "text": response.text,
            "finish_reason": response.finish_reason,
            "num_tokens": response.num_tokens,
            "teacher": self.teacher.model,
            "seed": self._seed(prompt, response.sample_id),
            "request_hash": hash_,
        }

    def _seed(self, prompt: Row, sample_id: int) -> int:
        return response_seed(self.teacher.seed, prompt["prompt_id"], sample_id)

    def _load(self) -> Teacher:
        if self._loaded is None:
            self._loaded = open_teacher(self.teacher)
        return self._loaded

    def close(self) -> None:
        """Give back what the teacher holds."""
        if self._loaded is not None:
            self._loaded.close()

    def _count(self, table: pa.Table) -> None:
        reasons = table["finish_reason"].to_pylist()
        self.done += table.num_rows
        self.tokens += sum(table["num_tokens"].to_pylist())
        self.truncated += reasons.count("length")
        self.errors += reasons.count("error")
        self._tell(0, 0)

    def _tell(self, responses: int, tokens: int) -> None:
        self.progress(
            Event(
                stage="generate",
                done=self.done + responses,
                total=len(self.prompts) * self.teacher.k,
                unit="responses",
                tokens=self.tokens + tokens,
            )
        )
