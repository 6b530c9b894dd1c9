"""What every teacher takes and gives, whatever runs it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from advdistill_core.store.fingerprint import canonical_json

FinishReason = Literal["stop", "length", "error"]
OnTokens = Callable[[int], None]
Tell = Callable[[str], None]  # takes a line for whoever waits

#: Stands in the seed column for a sample whose request carried none.
NO_SEED = -1


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep all tokens."""

    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Request:
    """Samples wanted of one rendered prompt.

    Args:
        index: the caller's number of the prompt.
        prompt: the text after which the answer begins.
        samples: sample ids and the seed of each.
    """

    index: int
    prompt: str
    samples: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Response:
    """A finished sample.

    Args:
        index: which prompt, by its position in the request.
        sample_id: which of the prompt's samples.
        text: without the end token.
        finish_reason: stop (end token), length (cut at `max_new_tokens`) or error.
        num_tokens: generated tokens, the end token included.
        seed: the seed that its request carried, which several samples of one request
            share, or NO_SEED; None: the sample's own, as the request says.
        prompt_tokens: tokens of the prompt that were computed or charged with this sample. The
            samples of a request share one prompt, so all but the first may have 0.
    """

    index: int
    sample_id: int
    text: str
    finish_reason: FinishReason
    num_tokens: int
    seed: int | None = None
    prompt_tokens: int = field(default=0, compare=False)  # an account, no part of the sample


def say_nothing(text: str) -> None:
    """Tell nobody."""


class Teacher(Protocol):
    """A loaded model or an endpoint that answers requests."""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt of a request for a conversation."""
        ...

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, on_tokens: OnTokens | None = None
    ) -> Iterator[Response]:
        """Yield each wanted sample once, in the order in which they finish.

        Args:
            requests: with distinct indices. They are taken one by one, in the caller's
                thread, while there is room: one call that is fed shard after shard never
                lets the engine run dry between them.
            on_tokens: told now and then how many tokens this call has generated so far.
        """
        ...

    def close(self) -> None:
        """Give back memory, processes and connections."""
        ...


def response_seed(seed: int, prompt_id: str, sample_id: int) -> int:
    """The seed of one response (63 bits), a function of nothing but its arguments."""
    text = canonical_json([seed, prompt_id, sample_id])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def request_hash(model_identity: str, prompt: str, sampling: Sampling) -> str:
    """What decides a response beside its seed: model, rendered prompt, sampling parameters."""
    text = canonical_json([model_identity, prompt, asdict(sampling)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
