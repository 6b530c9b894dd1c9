"""What an OpenAI-compatible endpoint answers: samples, token counts, when to ask again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from advdistill_core.teachers.protocol import FinishReason

LONGEST_WAIT_S = 60.0
_CHARACTERS_PER_TOKEN = 4  # where the endpoint does not tell its usage
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_CUT_SHORT = "abort"  # vLLM's reason for what its own end cut off


class Retriable(Exception):
    """A failure that may pass.

    Args:
        reason: what happened, without anything of the request.
        wait_s: how long the endpoint asks to wait, in seconds.
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Refused(Exception):
    """The endpoint does not want this request, now or later."""


@dataclass(frozen=True)
class Choice:
    """One sample of an answer; the first of an answer carries the prompt's tokens."""

    text: str
    finish_reason: FinishReason
    num_tokens: int
    prompt_tokens: int = 0


FAILED = Choice("", "error", 0)


def choices(answer: httpx.Response, wanted: int, longest: int) -> list[Choice]:
    """The samples in an answer, at most as many as were asked for.

    Token counts are exact where the endpoint gives the ids of each sample or one sample's
    usage; see `_shared` for a usage of several samples.

    Args:
        longest: tokens that were allowed to each sample.

    Raises:
        Retriable: it is no completion (torn or of another form), has no sample, or was cut
            short by the end of its server.
    """
    try:
        document = answer.json()
        listed = document["choices"]
        found = [
            (choice["message"].get("content") or "", choice.get("finish_reason"), choice.get("token_ids"))
            for choice in listed
        ][:wanted]
        usage = document.get("usage") or {}
        told, prompt_tokens = _count(usage, "completion_tokens"), _count(usage, "prompt_tokens")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Retriable("no completion") from error
    if not found or not all(isinstance(text, str) for text, _, _ in found):
        raise Retriable("no sample")
    if any(reason == _CUT_SHORT for _, reason, _ in found):
        raise Retriable("cut short")
    texts = [text for text, _, _ in found]
    if all(isinstance(ids, list) and ids for _, _, ids in found):
        counts = [len(ids) for _, _, ids in found]
    elif told is not None and len(listed) == len(found):
        counts = _shared(told, texts, [reason == "length" for _, reason, _ in found], longest)
    else:
        counts = [_estimate(text) for text in texts]
    return [
        Choice(text, _FINISH.get(str(reason), "error"), count, 0 if i else prompt_tokens or 0)
        for i, ((text, reason, _), count) in enumerate(zip(found, counts, strict=True))
    ]


def retry_after_s(answer: httpx.Response) -> float | None:
    """Seconds from now that a Retry-After header asks for, which are a number or a date in it."""
    told = answer.headers.get("retry-after", "")
    try:
        seconds = float(told)
    except ValueError:
        seconds = _until(told)
    return min(max(seconds, 0.0), LONGEST_WAIT_S * 10) if seconds == seconds else None


def _until(date: str) -> float:
    """Seconds from now to a date of HTTP; not a number for anything else."""
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, or one without a time zone
        return math.nan


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    told = usage.get(name)
    return told if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else None


def _shared(total: int, texts: Sequence[str], cut: Sequence[bool], longest: int) -> list[int]:
    """Divide a token count of all samples; the sum is kept.

    Those that were cut have `longest` tokens. The others share the rest by the lengths of
    their texts, each with 1 to `longest`. Where that does not fit the count, which an endpoint
    with an own notion of it may tell, all share it by their lengths.
    """
    lengths = [len(text) + 1 for text in texts]
    ended = [i for i, is_cut in enumerate(cut) if not is_cut]
    rest = total - longest * (len(texts) - len(ended))
    if not len(ended) <= rest <= longest * len(ended):
        return _in_proportion(total, lengths)
    counts = dict.fromkeys(range(len(texts)), longest)
    while ended:
        more = _in_proportion(rest - len(ended), [lengths[i] for i in ended])
        shares = {i: 1 + count for i, count in zip(ended, more, strict=True)}
        full = {i for i, count in shares.items() if count > longest}
        if not full:
            return list((counts | shares).values())
        rest -= longest * len(full)
        ended = [i for i in ended if i not in full]
    return list(counts.values())


def _in_proportion(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers with that sum, in proportion to the weights."""
    whole, before, counts = sum(weights), 0, []
    for weight in weights:
        after = before + weight
        counts.append(total * after // whole - total * before // whole)
        before = after
    return counts


def _estimate(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
