"""The stage `generate`: k sampled responses of the teacher to every training prompt."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.errors import ErrorRateError, StageError
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter, fingerprint
from advdistill_core.store.tables import RESPONSES, from_rows
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
    return {"teacher": {**config.teacher.identity(), "model": models.identity(config.teacher.model)}}


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
    if work.errors / total > config.teacher.max_error_frac:
        raise ErrorRateError(
            f"stage generate: got {work.errors} failed requests of {total}, expected at most "
            f"{config.teacher.max_error_frac:.1%} (teacher.max_error_frac)."
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
        self.identity = models.identity(self.teacher.model)
        self.done = self.resumed = self.tokens = self.truncated = self.errors = 0
        self._loaded: tuple[Teacher, Any] | None = None

    def shards(self) -> Iterator[pa.Table]:
        size = self.teacher.shard_size
        for start in range(0, len(self.prompts), size):
            prompts = self.prompts[start : start + size]
            # Named by its prompts: another shard size must not take it for its own.
            key = "shard-" + fingerprint("shard", "1", {"ids": [p["prompt_id"] for p in prompts]}, {})
            table = self.out.read_shard(key)
            if table is None:
                table = from_rows(self._generate(prompts), RESPONSES)
                self.out.write_shard(key, table)
            else:
                self.resumed += table.num_rows
            self._count(table)
            yield table

    def _generate(self, prompts: Sequence[Row]) -> list[Row]:
        """Rows in the order of prompts and samples."""
        from advdistill_core.models.chat import render

        teacher, tokenizer = self._load()
        seed = self.teacher.seed
        rendered = [render(tokenizer, prompt["messages"]) for prompt in prompts]
        requests = [
            Request(
                i, text, tuple((s, response_seed(seed, p["prompt_id"], s)) for s in range(self.teacher.k))
            )
            for i, (p, text) in enumerate(zip(prompts, rendered, strict=True))
        ]
        responses: list[Response] = []
        finished_tokens = 0

        def tell(tokens: int) -> None:
            self._tell(len(responses), max(tokens, finished_tokens))

        for response in teacher.generate(requests, self.sampling, tell):
            responses.append(response)
            finished_tokens += response.num_tokens
        return [
            {
                "prompt_id": prompts[r.index]["prompt_id"],
                "sample_id": r.sample_id,
                "text": r.text,
                "finish_reason": r.finish_reason,
                "num_tokens": r.num_tokens,
                "teacher": self.teacher.model,
                "seed": dict(requests[r.index].samples)[r.sample_id],
                "request_hash": request_hash(self.identity, rendered[r.index], self.sampling),
            }
            for r in sorted(responses, key=lambda r: (r.index, r.sample_id))
        ]

    def _load(self) -> tuple[Teacher, Any]:
        if self._loaded is None:
            from advdistill_core.teachers.local import Engine

            settings = self.teacher
            model = models.load_model(
                settings.model, settings.dtype, settings.device, settings.trust_remote_code
            )
            tokenizer = models.load_tokenizer(settings.model, settings.trust_remote_code)
            self._loaded = Engine(model, tokenizer, settings.batch_size), tokenizer
        return self._loaded

    def close(self) -> None:
        """Give back what the teacher holds."""
        if self._loaded is not None:
            self._loaded[0].close()

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
