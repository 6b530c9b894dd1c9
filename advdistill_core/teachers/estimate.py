"""What a generation will take: tokens, time and money, from a short probe.

The probe asks the teachers for a few responses to prompts spread over the data and scales
what they took to what is missing. Its answers are thrown away.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from advdistill_core.config import DistillConfig, TeacherConfig
from advdistill_core.errors import InputError
from advdistill_core.progress import Event, Progress, silent
from advdistill_core.store import Artifact
from advdistill_core.teachers.backends import open_teacher
from advdistill_core.teachers.members import Member, Row, members
from advdistill_core.teachers.openings import render_for
from advdistill_core.teachers.protocol import Request, Response
from advdistill_core.teachers.spend import price

_Z_95 = 1.96


class TeacherEstimate(BaseModel):
    """One teacher's part; the bounds are those of a 95 % interval over prompts.

    `seconds` is at the speed of the probe, which has fewer responses under way than the
    run: an upper estimate, the model's start apart.
    """

    teacher: str
    responses: int
    probe_responses: int
    probe_tokens: int
    probe_seconds: float
    tokens_per_response: float
    truncated_frac: float
    failed: int
    tokens: float
    tokens_low: float
    tokens_high: float
    prompt_tokens: float
    seconds: float
    money: float
    money_high: float


class Estimate(BaseModel):
    """What a whole generation will take."""

    num_prompts: int
    responses: int
    tokens: float
    tokens_high: float
    prompt_tokens: float
    seconds: float
    money: float
    money_high: float
    is_priced: bool
    teachers: list[TeacherEstimate]


def estimate(
    config: DistillConfig, prompts: Artifact, num_prompts: int, samples: int, progress: Progress = silent
) -> Estimate:
    """Ask for a few responses and scale what they took.

    Args:
        prompts: the artifact of the questions.
        num_prompts: prompts of the probe, at most those that there are.
        samples: responses to each of them, at most each teacher's k.

    Raises:
        InputError: a teacher cannot be used.
    """
    total = sum(p.rows or 0 for p in prompts.manifest.parts if p.name.startswith("train"))
    chosen = _spread(prompts, total, num_prompts)
    with _named("teacher"):
        teachers = members(config.teacher)
    found = []
    for place, member in enumerate(teachers):
        with _named(f"teacher.mixture.{place - 1}" if place else "teacher"):
            found.append(_of_member(member, chosen, total, samples, progress))
    return Estimate(
        num_prompts=total,
        responses=sum(t.responses for t in found),
        tokens=sum(t.tokens for t in found),
        tokens_high=sum(t.tokens_high for t in found),
        prompt_tokens=sum(t.prompt_tokens for t in found),
        seconds=sum(t.seconds for t in found),
        money=sum(t.money for t in found),
        money_high=sum(t.money_high for t in found),
        is_priced=any(m.config.prices.prompt or m.config.prices.completion for m in teachers),
        teachers=found,
    )


@contextlib.contextmanager
def _named(section: str) -> Iterator[None]:
    """Let errors of a model name the setting that names it."""
    try:
        yield
    except InputError as error:
        if error.what.partition(".")[0] not in TeacherConfig.model_fields:
            raise
        raise InputError(f"{section}.{error.what}", error.got, error.expected, error.remedy) from error


def _spread(prompts: Artifact, total: int, wanted: int) -> list[Row]:
    """Prompts at equal distances in the data."""
    places = {i * total // wanted for i in range(min(wanted, total))} if wanted < total else set(range(total))
    rows: list[Row] = []
    first = 0
    for part in prompts.tables("train"):
        mine = [place - first for place in sorted(places) if first <= place < first + part.num_rows]
        rows += part.select(["prompt_id", "messages"]).take(mine).to_pylist()
        first += part.num_rows
    return rows


def _of_member(
    member: Member, chosen: Sequence[Row], total: int, samples: int, progress: Progress
) -> TeacherEstimate:
    k = min(samples, member.config.k)
    responses, seconds = _probe(member, chosen, k, progress)
    good = [r for r in responses if r.finish_reason != "error"]
    by_prompt = [
        [r.num_tokens for r in good if r.index == place]
        for place in range(len(chosen))
        if any(r.index == place for r in good)
    ]
    mean, error = _mean_and_error([sum(group) / len(group) for group in by_prompt])
    tokens = sum(r.num_tokens for r in good)
    prompt_tokens = sum(r.prompt_tokens for r in responses) / max(1, len(chosen))
    num_responses = total * member.config.k
    all_prompt_tokens = prompt_tokens * total
    high = num_responses * min(mean + _Z_95 * error, member.config.max_new_tokens)
    speed = tokens / seconds if tokens else math.nan
    return TeacherEstimate(
        teacher=member.config.model,
        responses=num_responses,
        probe_responses=len(responses),
        probe_tokens=tokens,
        probe_seconds=seconds,
        tokens_per_response=mean,
        truncated_frac=sum(r.finish_reason == "length" for r in good) / max(1, len(good)),
        failed=len(responses) - len(good),
        tokens=num_responses * mean,
        tokens_low=num_responses * max(mean - _Z_95 * error, 0.0),
        tokens_high=high,
        prompt_tokens=all_prompt_tokens,
        seconds=num_responses * mean / speed if tokens else 0.0,
        money=price(member, num_responses * mean, all_prompt_tokens),
        money_high=price(member, high, all_prompt_tokens),
    )


def _probe(member: Member, chosen: Sequence[Row], k: int, progress: Progress) -> tuple[list[Response], float]:
    """The responses of the probe and the seconds that they took."""
    render = render_for(member.config)
    requests = [
        Request(
            place,
            render(member.messages(prompt["messages"])),
            tuple((n, member.seed(prompt["prompt_id"], n)) for n in range(k)),
        )
        for place, prompt in enumerate(chosen)
    ]
    responses: list[Response] = []

    def tell(message: str = "") -> None:
        total = len(requests) * k
        progress(Event(stage="probe", done=len(responses), total=total, unit="responses", message=message))

    with tempfile.TemporaryDirectory() as folder:
        teacher = open_teacher(_careful(member.config), Path(folder), tell)
        try:
            began = time.monotonic()
            for response in teacher.generate(requests, member.sampling):
                responses.append(response)
                tell()
            return responses, max(time.monotonic() - began, 1e-9)
        finally:
            teacher.close()


def _careful(config: TeacherConfig) -> TeacherConfig:
    """Without long repetitions: a probe that fails should say so soon."""
    update: dict[str, Any] = {"max_retries": min(config.max_retries, 2)}
    return config.model_copy(update=update)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over prompts and its standard error; no error is known of a single prompt."""
    if not values:
        return 0.0, 0.0
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
