"""A teacher behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, hosted ones.

Requests go to `/chat/completions` with the messages, so the endpoint applies its own chat
template. Whether it can give several samples per request (`n`) is found out from its
answers. What fails after all retries is a response with finish reason `error`.
"""

import asyncio
import json
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from advdistill_core.config import TeacherConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.store.fingerprint import canonical_json
from advdistill_core.teachers.gate import Gate
from advdistill_core.teachers.protocol import FinishReason, OnTokens, Request, Response, Sampling

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_CHARACTERS_PER_TOKEN = 4  # where the endpoint does not tell its usage
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_REFUSED_FOR_ALL = {401, 402, 403, 404, 405}  # wrong key, no credit, no such model or path


class _Retriable(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Refused(Exception):
    """The endpoint does not want this request, now or later."""


@dataclass(frozen=True)
class _Choice:
    text: str
    finish_reason: FinishReason
    num_tokens: int


def precheck(config: TeacherConfig) -> None:
    """Check the address and that the key is there.

    Raises:
        InputError: one of them cannot be used.
    """
    url = httpx.URL(config.base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError("teacher.base_url", config.base_url, "an address such as http://host:8000/v1")
    if url.userinfo or url.query or url.fragment:
        raise InputError(
            "teacher.base_url",
            f"{url.scheme}://{url.host} with a user, query or fragment",
            "an address alone, since it is stored and shown",
            "Put the key in an environment variable and name that in teacher.api_key_env.",
        )
    if config.api_key_env and not os.environ.get(config.api_key_env):
        raise InputError(
            "teacher.api_key_env", config.api_key_env, "an environment variable that holds the key", "Set it."
        )


class Endpoint:
    """Answers requests over HTTP, many at once; see `protocol.Teacher`."""

    def __init__(self, config: TeacherConfig) -> None:
        precheck(config)
        self.config = config
        self.several_at_once = True  # until an answer shows otherwise
        self._url = config.base_url.rstrip("/") + "/chat/completions"

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The messages themselves, as text; the endpoint has the template."""
        return canonical_json([dict(message) for message in messages])

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_tokens: OnTokens | None = None
    ) -> Iterator[Response]:
        """Yield responses as they arrive.

        Raises:
            StageError: the endpoint refuses everything (key, model name, address).
        """
        arrived: queue.Queue[Response | BaseException | None] = queue.Queue()
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._answer_all(requests, sampling, arrived))
        thread = threading.Thread(target=_drive, args=(loop, work, arrived), name="endpoint", daemon=True)
        thread.start()
        tokens = 0
        try:
            while (item := arrived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                tokens += item.num_tokens
                if on_tokens:
                    on_tokens(tokens)
                yield item
        finally:  # also when the caller stops listening
            if thread.is_alive():
                with suppress(RuntimeError):  # the loop closed meanwhile
                    loop.call_soon_threadsafe(work.cancel)
            thread.join()

    def close(self) -> None:
        """Nothing is held between calls."""

    async def _answer_all(
        self, requests: Sequence[Request], sampling: Sampling, arrived: "queue.Queue[Any]"
    ) -> None:
        gate = Gate(self.config.concurrency)
        key = os.environ.get(self.config.api_key_env, "") if self.config.api_key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=self.config.concurrency)
        timeout = httpx.Timeout(self.config.timeout_s)
        async with (
            httpx.AsyncClient(headers=headers, limits=limits, timeout=timeout) as client,
            asyncio.TaskGroup() as group,
        ):
            for request in requests:
                group.create_task(self._answer(client, gate, request, sampling, arrived))

    async def _answer(
        self,
        client: httpx.AsyncClient,
        gate: Gate,
        request: Request,
        sampling: Sampling,
        arrived: "queue.Queue[Any]",
    ) -> None:
        """All samples of one prompt, however many requests that takes."""
        missing = list(request.samples)
        while missing:
            wanted = len(missing) if self.several_at_once else 1
            if wanted == 1 and len(missing) > 1:  # one request each, side by side
                alone = [Request(request.index, request.prompt, (sample,)) for sample in missing]
                await asyncio.gather(*(self._answer(client, gate, r, sampling, arrived) for r in alone))
                return
            body = self._body(request.prompt, sampling, wanted, missing[0][1])
            try:
                choices = await self._retried(client, gate, body)
            except _Retriable:
                choices = [_Choice("", "error", 0)] * wanted
            except _Refused:
                if wanted > 1:
                    self.several_at_once = False  # it may have been the n
                    continue
                choices = [_Choice("", "error", 0)]
            if len(choices) < wanted:
                self.several_at_once = False
            for (sample_id, _), choice in zip(missing, choices, strict=False):
                arrived.put(
                    Response(request.index, sample_id, choice.text, choice.finish_reason, choice.num_tokens)
                )
            missing = missing[len(choices) :]

    def _body(self, prompt: str, sampling: Sampling, n: int, seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": json.loads(prompt),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
        }
        if self.config.send_seed:
            body["seed"] = seed % (1 << 31)
        if n > 1:
            body["n"] = n
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        return body

    async def _retried(self, client: httpx.AsyncClient, gate: Gate, body: Mapping[str, Any]) -> list[_Choice]:
        """One request, again after failures that may pass, later each time."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_Retriable),
            stop=stop_after_attempt(1 + self.config.max_retries),
            wait=_wait,
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                async with gate.turn():
                    choices = await self._once(client, gate, body)
        return choices

    async def _once(self, client: httpx.AsyncClient, gate: Gate, body: Mapping[str, Any]) -> list[_Choice]:
        try:
            async with asyncio.timeout(self.config.timeout_s):  # also for an answer that trickles
                answer = await client.post(self._url, json=body)
        except (httpx.TransportError, TimeoutError) as error:
            raise _Retriable(type(error).__name__) from error
        status = answer.status_code
        if status == 429 or status == 503:
            wait_s = _retry_after_s(answer)
            gate.overloaded(wait_s or 0.0)
            raise _Retriable(f"status {status}", wait_s)
        if status in (408, 409, 425) or status >= 500:
            raise _Retriable(f"status {status}", _retry_after_s(answer))
        if status in _REFUSED_FOR_ALL:
            raise StageError(f"teacher endpoint {self._url}: got status {status}, expected an answer.")
        if status >= 300:
            raise _Refused(f"status {status}")
        gate.succeeded()
        return _choices(answer, int(body.get("n", 1)))


def _drive(loop: asyncio.AbstractEventLoop, work: "asyncio.Task[None]", arrived: "queue.Queue[Any]") -> None:
    """Run the requests in this thread; the last thing put is None or the error."""
    last: BaseException | None = None
    try:
        loop.run_until_complete(work)
    except asyncio.CancelledError:
        pass
    except BaseExceptionGroup as failures:
        last = failures.exceptions[0]
    except BaseException as error:  # noqa: BLE001  raised again by the reader, where it belongs
        last = error
    finally:
        loop.close()
        arrived.put(last)


def _choices(answer: httpx.Response, wanted: int) -> list[_Choice]:
    """The samples in an answer, at most as many as were asked for.

    Raises:
        _Retriable: it is no completion (torn or of another form), or has no sample.
    """
    try:
        document = answer.json()
        found = [
            (choice["message"].get("content") or "", choice.get("finish_reason"))
            for choice in document["choices"]
        ][:wanted]
        told: Any = (document.get("usage") or {}).get("completion_tokens")
        num_returned = len(document["choices"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Retriable("no completion") from error
    if not found or not all(isinstance(text, str) for text, _ in found):
        raise _Retriable("no sample")
    texts = [text for text, _ in found]
    exact = isinstance(told, int) and num_returned == len(found)
    counts = _shared(int(told), texts) if exact else [_estimate(text) for text in texts]
    return [
        _Choice(text, _FINISH.get(str(reason), "error"), count)
        for (text, reason), count in zip(found, counts, strict=True)
    ]


def _shared(total: int, texts: Sequence[str]) -> list[int]:
    """Divide a token count of all samples by the lengths of their texts; the sum is kept."""
    lengths = [len(text) + 1 for text in texts]
    whole, before, counts = sum(lengths), 0, []
    for length in lengths:
        after = before + length
        counts.append(total * after // whole - total * before // whole)
        before = after
    return counts


def _estimate(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _retry_after_s(answer: httpx.Response) -> float | None:
    """Seconds of a Retry-After header, if it has them (dates are not worth the trouble)."""
    try:
        seconds = float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_S * 10) if seconds == seconds else None


def _wait(state: RetryCallState) -> float:
    """What the endpoint asks for, else twice as long each time."""
    error = state.outcome.exception() if state.outcome else None
    backoff = min(_FIRST_WAIT_S * 2.0 ** (state.attempt_number - 1), _LONGEST_WAIT_S)
    return max(error.wait_s, 0.0) if isinstance(error, _Retriable) and error.wait_s is not None else backoff
