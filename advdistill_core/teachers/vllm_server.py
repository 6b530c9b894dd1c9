"""A vLLM server that is kept running: started, watched, started again, ended for good.

A thread of its own holds it, since the kernel ends a leash with the thread that started
it (`advdistill_core.leash`: nothing of the server outlives this process, however it ends).
"""

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from advdistill_core import gpu
from advdistill_core.errors import StageError
from advdistill_core.processes import end_group
from advdistill_core.teachers.protocol import Tell, say_nothing
from advdistill_core.teachers.vllm_command import environment

_GRACE_S = 10.0  # between asking it to end and killing it
_LEASH_GRACE_S = 30.0
_TELL_EVERY_S = 5.0
_POLL_S, _HEALTH_EVERY_S, _HEALTH_LIMIT_S = 0.2, 2.0, 10.0
_SILENCE_S = 120.0  # how long it may not answer at all
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_TAIL_BYTES = 4000


class Server:
    """One server at a time, on this machine's loopback.

    Args:
        command: the command for a port.
        folder: where its log is kept.
        start_timeout_s: how long a start may take.
        max_restarts: how often it is started again after a death.
    """

    def __init__(
        self, command: Callable[[int], Sequence[str]], folder: Path, start_timeout_s: float, max_restarts: int
    ) -> None:
        self.key = secrets.token_urlsafe(32)
        self.base_url = ""
        self.log = folder / "vllm.log"
        self.num_restarts = 0
        self.remark = ""  # why it was started again last
        self._command, self._start_timeout_s, self._max_restarts = command, start_timeout_s, max_restarts
        self._lives = 0  # servers that became healthy
        self._up, self._closing = threading.Event(), threading.Event()
        self._failure: StageError | None = None
        self._gpu_used_before = gpu.used_mib()
        folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._keep, name="vllm", daemon=True)

    def start(self, tell: Tell = say_nothing) -> None:
        """Start it and wait until it answers.

        Args:
            tell: told what is waited for, at once and every few seconds.

        Raises:
            StageError: it did not start, with the end of its log.
        """
        began = told = time.monotonic()
        self._thread.start()
        try:
            tell(f"starting vLLM, its log is {self.log}")
            while not self._up.wait(_POLL_S):
                self.check()
                if time.monotonic() - told > _TELL_EVERY_S:
                    told = time.monotonic()
                    tell(f"starting vLLM, {told - began:.0f} s so far, its log is {self.log}")
            tell(f"vLLM answers after {time.monotonic() - began:.0f} s")
        except BaseException:
            self.close()
            raise

    def check(self) -> int | None:
        """Which server is running, by its number; None while the next one starts.

        Raises:
            StageError: none is, and none will be.
        """
        if self._failure is not None:
            raise self._failure
        return self._lives if self._up.is_set() else None

    def close(self) -> None:
        """End it with everything that it started."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    # -- the thread -----------------------------------------------------------------------

    def _keep(self) -> None:
        """Run server after server until `close` or until too many have died."""
        while not self._closing.is_set():
            problem = self._live()
            self._free_gpu()
            if self._closing.is_set():
                return
            if self._lives == 0 or self.num_restarts == self._max_restarts:
                self._failure = self._error(problem)
                return
            wait_s = min(_FIRST_WAIT_S * 2.0**self.num_restarts, _LONGEST_WAIT_S)
            number = self.num_restarts + 1
            self.remark = f"{problem}; start {number} of {self._max_restarts} in {wait_s:g} s"
            self.num_restarts = number  # from here on the remark may be read
            self._note(self.remark)
            self._closing.wait(wait_s)

    def _live(self) -> str:
        """One server from its start to its end; returns why it ended."""
        port = _free_port()
        base = f"http://127.0.0.1:{port}"
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "advdistill_core.leash", str(os.getpid()), str(_GRACE_S)]
                + list(self._command(port)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self.key),
                start_new_session=True,
            )
        try:
            problem = self._become_healthy(process, base)
            if problem:
                return problem
            self.base_url = f"{base}/v1"
            self._lives += 1
            self._up.set()
            return self._watch(process, base)
        finally:
            self._up.clear()
            end_group(process, _LEASH_GRACE_S)

    def _become_healthy(self, process: "subprocess.Popen[bytes]", base: str) -> str:
        """Wait for the first answer that takes our key; returns what went wrong, if anything."""
        deadline = time.monotonic() + self._start_timeout_s
        while not self._closing.wait(_POLL_S):
            if process.poll() is not None:
                return f"it ended with exit code {process.returncode} before it was ready"
            if self._status(f"{base}/v1/models") == 200:
                return ""
            if time.monotonic() > deadline:
                return f"it was not ready within {self._start_timeout_s:g} s (teacher.vllm.start_timeout_s)"
        return "it was not wanted any more"

    def _watch(self, process: "subprocess.Popen[bytes]", base: str) -> str:
        """Wait for its end, or for a sign that its engine is gone; returns which."""
        answered = asked = time.monotonic()
        while not self._closing.wait(_POLL_S):
            if process.poll() is not None:
                return f"it ended with exit code {process.returncode}"
            now = time.monotonic()
            if now - asked < _HEALTH_EVERY_S:
                continue
            asked, status = now, self._status(f"{base}/health")
            if status is not None and status >= 500:
                return f"its health check answers {status}"
            answered = now if status is not None else answered
            if now - answered > _SILENCE_S:
                return f"it has not answered for {_SILENCE_S:g} s"
        return "it was not wanted any more"

    def _status(self, url: str) -> int | None:
        try:
            return httpx.get(
                url, headers=self._headers(), timeout=_HEALTH_LIMIT_S, trust_env=False
            ).status_code
        except httpx.HTTPError:
            return None

    def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def _free_gpu(self) -> None:
        """Confirm that the GPUs' memory is back; another program's use is told, not waited for."""
        left = gpu.wait_until_free(self._gpu_used_before)
        if left:
            self._note(f"{left} MiB more GPU memory is in use than before the start")

    def _error(self, problem: str) -> StageError:
        tail = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").replace(self.key, "...").strip()
        count = f" after {self.num_restarts} restarts" if self.num_restarts else ""
        return StageError(f"vLLM server{count}: {problem}. The end of its log, {self.log}:\n{tail}")

    def _note(self, text: str) -> None:
        with open(self.log, "ab") as log:
            log.write(f"advdistill: {text}\n".encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
