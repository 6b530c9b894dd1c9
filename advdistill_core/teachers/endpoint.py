"""A teacher behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, hosted ones.

Requests go to `/chat/completions` with the messages, so the endpoint applies its own chat
template. Whether it can give several samples per request (`n`) is found out from its
answers. What fails after all retries is a response with finish reason `error`.
"""

import asyncio
import json
import os
import queue
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from advdistill_core.config import TeacherConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.store.fingerprint import canonical_json
from advdistill_core.teachers.completion import (
    FAILED,
    LONGEST_WAIT_S,
    Choice,
    Refused,
    Retriable,
    choices,
    retry_after_s,
)
from advdistill_core.teachers.gate import Gate
from advdistill_core.teachers.protocol import (
    NO_SEED,
    OnTokens,
    Request,
    Response,
    Sampling,
    Tell,
    say_nothing,
)

_FIRST_WAIT_S = 0.5
_AHEAD = 2  # prompts taken from the caller, as a multiple of what may be asked at once
_SILENCE_S = 10.0  # without a response, until it is said that failed requests are asked again
_NO_SUCH = "Correct teacher.base_url (it often ends in /v1) or teacher.model."
_REFUSED_FOR_ALL = {  # and what to do about it
    401: "It does not take the key: correct {key}.",
    402: "It wants to be paid: see to the account of {key}.",
    403: "It does not allow this to the key: correct {key}, or teacher.model.",
    404: _NO_SUCH,
    405: _NO_SUCH,
}


def precheck(config: TeacherConfig) -> None:
    """Check the address and that the key is there.

    Raises:
        InputError: one of them cannot be used.
    """
    try:
        url = httpx.URL(config.base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(
            "teacher.base_url", config.base_url, "an address such as http://host:8000/v1", "Correct it."
        )
    if url.userinfo or url.query or url.fragment:
        raise InputError(
            "teacher.base_url",
            f"{url.scheme}://{url.host} with a user, query or fragment",
            "an address alone, since it is stored and shown",
            "Put the key in an environment variable and name that in teacher.api_key_env.",
        )
    if config.api_key_env and not os.environ.get(config.api_key_env):
        raise InputError(
            "teacher.api_key_env",
            f"{config.api_key_env}, which is not set",
            "an environment variable that holds the key",
            f"Set {config.api_key_env} or store the key in a Prefect Secret of that name, as "
            f"{config.api_key_env.lower().replace('_', '-')}; empty is for an endpoint without a key.",
        )


class Endpoint:
    """Answers requests over HTTP, many at once; see `protocol.Teacher`.

    Args:
        tell: told what the caller of `generate` may want to know, in the caller's thread.
    """

    def __init__(self, config: TeacherConfig, tell: Tell = say_nothing) -> None:
        self.config, self._tell = config, tell
        self._arrived: queue.Queue[Response | BaseException | str] = queue.Queue()
        self.several_at_once = True  # until an answer shows otherwise
        self.trouble = ""  # why a request failed last, after all its attempts
        self._asking_again = ""  # why, if one is since the last response
        self._connect()

    def _connect(self) -> None:
        """Find out where to send requests, with which key and seeds."""
        precheck(self.config)
        key = os.environ.get(self.config.api_key_env, "") if self.config.api_key_env else ""
        self._base, self._key, self._local = self.config.base_url.rstrip("/"), key, False
        self._model, self._sends_seeds = self.config.model, self.config.send_seed
        self._extra: dict[str, Any] = {}  # further fields of every request

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The messages themselves, as text; the endpoint has the template."""
        return canonical_json([dict(message) for message in messages])

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, on_tokens: OnTokens | None = None
    ) -> Iterator[Response]:
        """Yield responses as they arrive.

        Raises:
            StageError: the endpoint refuses everything (key, model name, address).
        """
        arrived = self._arrived = queue.Queue()
        loop = asyncio.new_event_loop()
        inbox: asyncio.Queue[Request] = asyncio.Queue()
        work = loop.create_task(self._answer_all(inbox, sampling, arrived))
        thread = threading.Thread(target=_drive, args=(loop, work, arrived), name="endpoint", daemon=True)
        thread.start()
        coming, missing, tokens = iter(requests), dict[int, int](), 0
        try:
            while True:
                while len(missing) < _AHEAD * self.config.concurrency and (request := next(coming, None)):
                    missing[request.index] = missing.get(request.index, 0) + len(request.samples)
                    with suppress(RuntimeError):  # the loop closed on an error, which has arrived
                        loop.call_soon_threadsafe(inbox.put_nowait, request)
                if not missing:
                    return
                try:
                    item = arrived.get(timeout=_SILENCE_S)
                except queue.Empty:
                    if self._asking_again:
                        self._tell(f"no response for a while, asking again: {self._asking_again}")
                    continue
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, str):
                    self._tell(item)
                    continue
                missing[item.index] -= 1
                if not missing[item.index]:
                    del missing[item.index]
                self._asking_again = ""
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
        self, inbox: "asyncio.Queue[Request]", sampling: Sampling, arrived: "queue.Queue[Any]"
    ) -> None:
        gate = Gate(self.config.concurrency)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        async with (
            httpx.AsyncClient(
                headers=headers,
                limits=httpx.Limits(max_connections=self.config.concurrency),
                timeout=httpx.Timeout(self.config.timeout_s),
                trust_env=not self._local,  # no proxy on the way to this machine
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            while True:
                request = await inbox.get()
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
        wanted = len(missing) if self.several_at_once else 1
        was_refused = False
        while missing:
            if wanted == 1 and len(missing) > 1 and not was_refused:  # one request each, side by side
                alone = [Request(request.index, request.prompt, (sample,)) for sample in missing]
                await asyncio.gather(*(self._answer(client, gate, r, sampling, arrived) for r in alone))
                return
            body = self._body(request.prompt, sampling, wanted, missing[0][1])
            try:
                found = await self._retried(client, gate, body)
            except Retriable as error:
                self._note(error)
                found = [FAILED] * wanted
            except Refused as error:
                self._note(error)
                if wanted > 1:  # it may be the n or the prompt: one sample tells
                    wanted, was_refused = 1, True
                    continue
                found = [FAILED] * len(missing) if was_refused else [FAILED]
            else:
                if len(found) < wanted or was_refused:
                    self.several_at_once = False
            for (sample_id, _), choice in zip(missing, found, strict=False):
                arrived.put(self._response(request.index, sample_id, choice, body))
            missing = missing[len(found) :]
            wanted, was_refused = len(missing) if self.several_at_once else 1, False

    def _note(self, error: Exception) -> None:
        self.trouble = f"{error} at {self._base}"  # an address alone: see precheck

    def _note_attempt(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._asking_again = f"{error} at {self._base}"

    @staticmethod
    def _response(index: int, sample_id: int, choice: Choice, body: Mapping[str, Any]) -> Response:
        return Response(
            index,
            sample_id,
            choice.text,
            choice.finish_reason,
            choice.num_tokens,
            seed=int(body.get("seed", NO_SEED)),
            prompt_tokens=choice.prompt_tokens,
        )

    def _body(self, prompt: str, sampling: Sampling, n: int, seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": json.loads(prompt),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            **self._extra,
        }
        if self._sends_seeds:
            body["seed"] = seed % (1 << 31)
        if n > 1:
            body["n"] = n
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        return body

    async def _retried(self, client: httpx.AsyncClient, gate: Gate, body: Mapping[str, Any]) -> list[Choice]:
        """One request, again after failures that may pass, later each time."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Retriable),
            stop=stop_after_attempt(1 + self.config.max_retries),
            wait=_wait,
            before_sleep=self._note_attempt,
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                async with gate.turn():
                    found = await self._once(client, gate, body)
        return found

    async def _once(self, client: httpx.AsyncClient, gate: Gate, body: Mapping[str, Any]) -> list[Choice]:
        try:
            async with asyncio.timeout(self.config.timeout_s):  # also for an answer that trickles
                answer = await client.post(f"{self._base}/chat/completions", json=body)
        except (httpx.TimeoutException, TimeoutError) as error:
            gate.overloaded(0.0)  # it may have more under way than it can answer in time
            raise Retriable("no answer in time") from error
        except httpx.TransportError as error:
            raise Retriable(_cause(error)) from error
        status = answer.status_code
        if status == 429 or status == 503:
            wait_s = retry_after_s(answer)
            gate.overloaded(wait_s or 0.0)
            raise Retriable(f"status {status}", wait_s)
        if status in (408, 409, 425) or status >= 500:
            raise Retriable(f"status {status}", retry_after_s(answer))
        if status in _REFUSED_FOR_ALL:
            key = self.config.api_key_env or "teacher.api_key_env, which names no key"
            remedy = _REFUSED_FOR_ALL[status].format(key=key)
            raise StageError(
                f"teacher endpoint {self._base}: got status {status}, expected an answer. {remedy}"
            )
        if status >= 300:
            raise Refused(f"status {status}")
        gate.succeeded()
        return choices(answer, int(body.get("n", 1)), int(body["max_tokens"]))


def _cause(error: BaseException) -> str:
    """What the system says of a connection that failed, such as connection refused."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, socket.gaierror):  # its numbers are its own
            return f"{below.strerror or 'no such name'}".lower()
        if isinstance(below, ssl.SSLError):  # its numbers are not the system's either
            return str(below.reason).replace("_", " ").lower()
        if isinstance(below, OSError) and below.errno:
            return os.strerror(below.errno).lower()
        if isinstance(below, BaseExceptionGroup):  # one for each address of a name
            below = below.exceptions[0]
        else:
            below = below.__cause__ or below.__context__
    return type(error).__name__


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


def _wait(state: RetryCallState) -> float:
    """What the endpoint asks for, else twice as long each time."""
    error = state.outcome.exception() if state.outcome else None
    backoff = min(_FIRST_WAIT_S * 2.0 ** (state.attempt_number - 1), LONGEST_WAIT_S)
    return max(error.wait_s, 0.0) if isinstance(error, Retriable) and error.wait_s is not None else backoff
