"""Filling the shards of a generation: what is missing is asked for, nothing twice.

One stream of requests runs through all shards, so that the engine is not left idle between
them; a shard is opened when its first request is taken and written when its last response
has come. Several processes may do this on one generation: each works on shards that nobody
else has claimed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ArtifactError, BudgetError, ErrorRateError, StageError
from advdistill_core.progress import SECONDS_LEFT, Event, Progress
from advdistill_core.store import Artifact, Store, fingerprint
from advdistill_core.store.tables import RESPONSES, from_rows
from advdistill_core.teachers.job import Job
from advdistill_core.teachers.members import Member, Row, group_size, members, reference_rows
from advdistill_core.teachers.openings import Openings
from advdistill_core.teachers.protocol import Request, Response
from advdistill_core.teachers.reuse import Reuse
from advdistill_core.teachers.shards import Facts, Shards
from advdistill_core.teachers.spend import Amount, Spend
from advdistill_core.teachers.summary import Summary

_POLL_S = 0.5


@dataclass
class _Asked:
    """A request that is under way."""

    job: Job
    place: int
    left: int
    reserved: Amount


class Generation:
    """One process's share of a generation.

    Args:
        prompts: the artifact of the questions.
        folder: the generation's artifact, relative to the store's root.
        is_over: whether somebody else has finished the artifact meanwhile.
    """

    def __init__(
        self,
        config: DistillConfig,
        prompts: Artifact,
        store: Store,
        folder: str,
        progress: Progress,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.prompts, self.progress, self.is_over = config.teacher, prompts, progress, is_over
        self.num_prompts = sum(p.rows or 0 for p in prompts.manifest.parts if p.name.startswith("train"))
        self.members = members(self.config)
        self.shards = Shards(store, folder, self.config.stalled_after_s)
        self.spend = Spend(self.config, self.members, self.shards)
        self.openings = Openings(self.config, store, folder, self._tell)
        self.summary = Summary()
        self.done = self.resumed = self.made = self.errors = 0
        self._kept_tokens = self._past_tokens = self._call_tokens = 0  # found; made in earlier calls; in this
        self._earlier = self.shards.names()  # finished before this attempt
        self._counted: set[str] = set()  # shards of which the responses are in `done`
        self._finished: set[str] = set()
        self._asked: dict[int, _Asked] = {}
        self._jobs: dict[str, Job] = {}
        self._last_index = -1
        self._cut = False  # the budget does not allow the next request
        self._began: float | None = None
        self._reuse: Reuse | None = None

    @property
    def total(self) -> int:
        return self.num_prompts * group_size(self.config)

    # -- the passes ---------------------------------------------------------------------

    def fill(self) -> None:
        """Work until every shard is there, whoever made it, or the artifact is.

        Raises:
            BudgetError: what is missing does not fit into `teacher.budget`.
            ErrorRateError: more requests than `teacher.max_error_frac` failed.
        """
        self.spend.recount()
        open_ends: dict[str, set[str] | None] = {member.tag: None for member in self.members}
        while open_ends:
            for member in self.members:
                if member.tag in open_ends:
                    left = self._fill_member(member, open_ends[member.tag])
                    open_ends[member.tag] = left
                    if not left:
                        del open_ends[member.tag]
            held = {key for keys in open_ends.values() for key in keys or ()}
            if held and not self._wait_for(held):
                return

    def close(self) -> None:
        """Give back what the teacher holds."""
        self.openings.close()

    def _fill_member(self, member: Member, only: set[str] | None) -> set[str]:
        """Make what nobody else is making; returns the shards that somebody is."""
        while True:
            made, held = self.made, set[str]()
            self._cut = False
            self._pass(member, only, held)
            if not self._cut:
                return held
            if self.made == made:  # not one more request fits
                raise BudgetError(
                    f"stage generate: got {self.spend.text()} spent, expected room for another request "
                    f"within {self.spend.limit_text()}. {self.done} of {self.total} responses are there and "
                    "kept: raise the budget and run the same command to go on."
                )

    def _pass(self, member: Member, only: set[str] | None, held: set[str]) -> None:
        feed = self._feed(member, only, held)
        try:
            first = next(feed, None)
            if first is None:
                return
            self._past_tokens += self._call_tokens
            self._call_tokens = 0
            teacher = self.openings.teacher(member)
            self._began = self._began or time.monotonic()  # a server's start is no generation
            for response in teacher.generate(chain([first], feed), member.sampling, self._on_tokens):
                self._take(response)
            for job in self._jobs.values():
                if not self._cut and not self.is_over():
                    raise StageError(
                        f"stage generate: got {len(job.rows)} responses, expected {member.config.k} to "
                        f"each of {len(job.prompts)} prompts. The teacher left some out without an error."
                    )
        finally:
            for job in self._jobs.values():
                job.close()
            self._jobs.clear()
            self._asked.clear()
            self.spend.under_way = Amount()

    def _feed(self, member: Member, only: set[str] | None, held: set[str]) -> Iterator[Request]:
        """The requests for what is missing, shard after shard."""
        for key, prompts in self.chunks(member):
            if (only is not None and key not in only) or self._is_settled(member, key):
                continue
            if self.is_over():  # others took this worker for stalled and went on without it
                return
            job = self._open(member, key, prompts)
            if job is None:
                held.add(key)
                continue
            for place, prompt in enumerate(prompts):
                numbers = job.missing(place)
                if not numbers:
                    continue
                reserved = self.spend.reserve(member, len(numbers), job.rendered[place])
                if reserved is None:
                    self._cut = True
                    return
                self._last_index += 1
                self._asked[self._last_index] = _Asked(job, place, len(numbers), reserved)
                samples = tuple((n, member.seed(prompt["prompt_id"], n)) for n in numbers)
                yield Request(self._last_index, job.rendered[place], samples)

    def _wait_for(self, held: set[str]) -> bool:
        """Wait until one of the shards of others is finished or free; False if all is over."""
        while not self.is_over():
            for key in held:
                if self.shards.exists(key):
                    return True
                claim = self.shards.claim(key)
                if claim is not None:
                    claim.release()
                    return True
            time.sleep(_POLL_S)
        return False

    # -- one shard ----------------------------------------------------------------------

    def chunks(self, member: Member) -> Iterator[tuple[str, list[Row]]]:
        """The prompts of each shard with the shard's key, in order, a part of the table at a time."""
        for prompts in self.prompt_chunks():
            document = {"ids": [p["prompt_id"] for p in prompts]}  # another shard size, another name
            if member.tag:
                document["teacher"] = [member.tag]
            yield "shard-" + fingerprint("shard", "1", document, {}), prompts

    def prompt_chunks(self) -> Iterator[list[Row]]:
        pending: list[Row] = []
        for part in self.prompts.tables("train"):
            for batch in part.select(["prompt_id", "messages", "reference_answer"]).to_batches(256):
                pending += batch.to_pylist()
                while len(pending) >= self.config.shard_size:
                    yield pending[: self.config.shard_size]
                    pending = pending[self.config.shard_size :]
        if pending:
            yield pending

    def _is_settled(self, member: Member, key: str) -> bool:
        """Whether a shard is there for good; it is counted the first time."""
        if key in self._finished:
            return True
        table = self.shards.read(key)
        if table is None:
            return False
        if key in self._earlier and member.errors_may_pass and "error" in table["finish_reason"].to_pylist():
            return False  # what failed in an earlier attempt may pass in this one
        self._count_kept(key, table.num_rows, sum(table["num_tokens"].to_pylist()))
        self.errors += table["finish_reason"].to_pylist().count("error")
        if key in self._earlier:
            self.resumed += table.num_rows - Facts.of(table.schema).reused
        self._bound_errors()
        self._finished.add(key)
        self._tell()
        return True

    def _open(self, member: Member, key: str, prompts: Sequence[Row]) -> Job | None:
        """Take a shard with what is there of it; None if somebody else has it."""
        claim = self.shards.claim(key)
        if claim is None:
            return None
        if key not in self._earlier and self.shards.exists(key):  # finished just now
            claim.release()
            return None
        job = Job.open(key, member, prompts, self.openings.renderer(member), claim, self.shards.journal(key))
        self._jobs[key] = job
        if key in self._earlier:
            self._earlier.discard(key)  # its errors are tried again once
            table = self.shards.read(key)
            if table is not None:
                job.facts, job.replaces = Facts.of(table.schema), True
                job.take_up(table.to_pylist())
        job.take_up(self.shards.journaled(key))
        if key not in self._counted:
            self.resumed += len(job.rows) - job.facts.reused
        if self.config.reuse:
            job.take_reused(self._reusable())
        self._count_kept(key, len(job.rows), job.num_tokens)
        if self.config.workers > 1:
            self.spend.recount()
        self._tell()
        if job.is_complete:
            self._finish(job)
        return job

    def _reusable(self) -> Reuse:
        if self._reuse is None:
            identities = {member.identity for member in self.members}
            self._reuse = Reuse(self.shards.store, identities, self.shards.folder)
        return self._reuse

    def _take(self, response: Response) -> None:
        """Keep a response that has come."""
        asked = self._asked[response.index]
        job = asked.job
        if not job.take(asked.place, response):
            return
        job.claim.beat()
        self.spend.settle(asked.reserved, job.member, response.num_tokens, response.prompt_tokens)
        self.errors += response.finish_reason == "error"
        asked.left -= 1
        if not asked.left:
            del self._asked[response.index]
        self.done += 1
        self.made += 1
        if job.is_complete:
            self._finish(job)
        self._tell()
        self._bound_errors()

    def _finish(self, job: Job) -> None:
        """Write a shard, unless a worker that took this one for stalled was faster."""
        if job.replaces or (self.shards.read(job.key) is None and not self.is_over()):
            self.shards.write(job.key, job.ordered(), job.facts)
        job.close()
        del self._jobs[job.key]
        self._finished.add(job.key)

    # -- accounts -----------------------------------------------------------------------

    def _count_kept(self, key: str, rows: int, tokens: int) -> None:
        """Count what was there of a shard when it was first looked at."""
        if key not in self._counted:
            self._counted.add(key)
            self.done += rows
            self._kept_tokens += tokens

    def _bound_errors(self) -> None:
        """Stop as soon as too many have failed, rather than after asking for all of them."""
        total = self.num_prompts * sum(member.config.k for member in self.members)
        if self.errors > self.config.max_error_frac * total:
            trouble = self.openings.trouble()
            text = (
                f"stage generate: got {self.errors} failed responses of {total}, expected at most "
                f"{self.config.max_error_frac:.1%} (teacher.max_error_frac)."
            )
            if trouble:
                text += f" The last one: {trouble}."
            if any(member.errors_may_pass for member in self.members):
                text += (
                    f" {self.done - self.errors} of {self.total} responses are there and kept: when the "
                    "teacher answers again, the same command continues."
                )
            raise ErrorRateError(text)

    def _on_tokens(self, tokens: int) -> None:
        self._call_tokens = max(self._call_tokens, tokens)
        for job in list(self._jobs.values()):
            job.claim.beat()
        self._tell()

    def _tell(self, message: str = "") -> None:
        self.progress(
            Event(
                stage="generate",
                done=self.done,
                total=self.total,
                unit="responses",
                tokens=self._kept_tokens + self._past_tokens + self._call_tokens,
                figures=self._figures(),
                message=message,
            )
        )

    def _figures(self) -> dict[str, float]:
        """What earlier attempts left, tokens per second, seconds left and money, as far as known."""
        figures: dict[str, float] = {"kept": self.resumed} if self.resumed else {}
        seconds = time.monotonic() - self._began if self._began else 0.0
        if seconds > 1:
            figures["tokens/s"] = (self._past_tokens + self._call_tokens) / seconds
            if self.made:
                figures[SECONDS_LEFT] = seconds * (self.total - self.done) / self.made
        if self.spend.is_priced:
            figures["spent"] = self.spend.total.money
        return figures

    # -- the result ---------------------------------------------------------------------

    def tables(self) -> Iterator[pa.Table]:
        """The finished shards as tables of responses, in the order of prompts and samples.

        Raises:
            ArtifactError: a shard was lost or torn since it was written.
        """
        streams = [self.chunks(member) for member in self.members]
        for prompts, *chunks in zip(self.prompt_chunks(), *streams, strict=True):
            found = [
                self._shard(member, key, prompts)
                for member, (key, _) in zip(self.members, chunks, strict=True)
            ]
            for member, table in zip(self.members, found, strict=True):
                self.summary.add(member, table)
            plain = [table.replace_schema_metadata(None) for table in found]
            if len(plain) == 1 and not self.config.reference_solutions:
                yield plain[0]
                continue
            rows = [row for table in plain for row in table.to_pylist()]
            order = {prompt["prompt_id"]: place for place, prompt in enumerate(prompts)}
            rows += reference_rows(self.config, prompts)
            rows.sort(key=lambda row: (order[row["prompt_id"]], row["sample_id"]))
            yield from_rows(rows, RESPONSES)

    def _shard(self, member: Member, key: str, prompts: Sequence[Row]) -> pa.Table:
        table = self.shards.read(key)
        if table is None or table.num_rows != len(prompts) * member.config.k:
            raise ArtifactError(
                f"{self.shards.folder}/work/{key}: got a missing or torn shard, expected the one just "
                "written. Run the same command again."
            )
        return table

    def told_all(self) -> None:
        """Say that everything is there."""
        self.done = self.total
        self._tell()
