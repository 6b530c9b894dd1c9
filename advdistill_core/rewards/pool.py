"""A pool of worker processes, each answer under a wall-clock and a memory limit.

No signals and no state outside the object: a pool may be used from any thread. A worker
that hangs, grows too large or dies is replaced at once, and the answers queued behind the
guilty one go to another worker.
"""

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from advdistill_core.errors import StageError
from advdistill_core.rewards.types import Answer, Graded, Part, Verdict

_JUDGE = "advdistill_core.rewards.judge"
_MAX_STILLBORN = 10
_POLL_S = 0.02
_WATCH_AFTER_S = 0.05  # a worker's size is looked at only when it takes long
_START_S = 120.0
_SEND_S = 30.0
_CHUNK_ANSWERS = 512
_CHUNK_CHARS = 256_000
_JUDGED_PER_WORKER = 5000  # then it is replaced: algebra systems cache without bound
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Job(NamedTuple):
    """Something for a worker to decide.

    Args:
        kind: `answer`; `reference` to ask whether the reference can be graded against
            (then the verdict is `correct` or `error`); `second` for a second opinion.
        part: the piece to judge; None lets the worker take a glance first.
    """

    kind: str
    answer: Answer
    part: Part | None = None


@dataclass
class _Worker:
    """A worker process as the caller sees it."""

    pid: int
    channel: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    queue: list[int] = field(default_factory=list)  # numbers of the jobs it has not answered
    began: int | None = None  # the job that it is judging
    heard_at: float = 0.0
    judged: int = 0
    ready: bool = False  # it has sent its first message


class Pool:
    """Worker processes that are started when first needed.

    Args:
        num_workers: how many; 0 for one per core that this process may use.
        timeout_s: seconds that one answer may take.
        memory_bytes: resident size at which a worker is ended.
        policy: the fields of the policy, for the verifiers in the workers.
    """

    def __init__(self, num_workers: int, timeout_s: float, memory_bytes: int, policy: dict[str, Any]) -> None:
        self.num_workers = num_workers or len(os.sched_getaffinity(0))
        self.timeout_s, self.memory_bytes = timeout_s, memory_bytes
        self._settings = {"memory_bytes": memory_bytes, "policy": policy}
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._workers: list[_Worker] = []
        self._loaded: set[str] = set()
        self._owner = os.getpid()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the living workers."""
        return [worker.pid for worker in self._workers]

    def run(self, jobs: Sequence[Job], modules: Sequence[str] = ()) -> Iterator[tuple[int, Graded]]:
        """Decide all jobs, yielding (index in `jobs`, verdict) as they finish.

        Args:
            modules: what the workers should have imported before the first time limit.
        """
        try:
            self._prepare(modules, len(jobs))
            yield from _Run(self, jobs).results()
        finally:
            for worker in [w for w in self._workers if w.queue]:  # interrupted: nobody waits for them
                self._discard(worker)

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.channel.close()
        self._workers = []
        if self._control is not None:
            self._control.close()  # the nursery sees it and ends the workers
            self._control = None
        if self._nursery is not None:
            try:
                self._nursery.wait(5)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._nursery = None
        self._loaded = set()

    # -- processes ----------------------------------------------------------------------

    def _prepare(self, modules: Sequence[str], num_jobs: int) -> None:
        if self._owner != os.getpid():  # the caller was forked: the workers are its parent's
            self._nursery, self._control, self._workers, self._loaded = None, None, [], set()
            self._owner = os.getpid()
        if self._nursery is None or self._nursery.poll() is not None:
            self.close()
            self._start_nursery()
        missing = [module for module in (_JUDGE, *modules) if module not in self._loaded]
        if missing:
            error = self._ask({"preload": missing})["error"]
            if error:
                raise StageError(f"verification: got no module {error}, expected it to import.")
            self._loaded.update(missing)
            for worker in list(self._workers):  # they were forked before
                self._discard(worker)
        wanted = max(1, min(self.num_workers, num_jobs))
        while len(self._workers) < wanted:
            self._add_worker()

    def _start_nursery(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._nursery = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "advdistill_core.rewards.worker",
                str(theirs.fileno()),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            # A fixed hash seed: the order of sets must not decide a verdict.
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        ours.settimeout(_START_S)
        self._control = ours

    def _ask(self, request: dict[str, Any], descriptor: int | None = None) -> dict[str, Any]:
        assert self._control is not None
        try:
            data = json.dumps(request).encode()
            if descriptor is None:
                self._control.sendall(data)
            else:
                socket.send_fds(self._control, [data], [descriptor])
            reply = self._control.recv(1 << 16)
        except OSError as error:
            raise StageError(f"verification: its worker processes cannot be started ({error}).") from error
        if not reply:
            raise StageError("verification: the process that starts its workers ended.")
        return json.loads(reply)  # type: ignore[no-any-return]

    def _add_worker(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            pid = int(self._ask({"fork": self._settings}, theirs.fileno())["pid"])
        finally:
            theirs.close()
        self._workers.append(_Worker(pid, ours, heard_at=time.monotonic()))

    def _discard(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.channel.close()
        worker.queue = []
        self._ask({"kill": worker.pid})

    def _replace(self, worker: _Worker) -> None:
        self._discard(worker)
        self._add_worker()


class _Run:
    """The jobs of one call on their way through the pool."""

    def __init__(self, pool: Pool, jobs: Sequence[Job]) -> None:
        self.pool, self.jobs = pool, jobs
        self.next = 0
        self.alone: deque[int] = deque()  # after an unexplained death: one at a time
        self.again: deque[int] = deque()  # were queued behind a guilty one
        self.left = len(jobs)
        self.stillborn = 0

    def results(self) -> Iterator[tuple[int, Graded]]:
        while self.left:
            with selectors.DefaultSelector() as selector:
                for worker in list(self.pool._workers):
                    if not worker.queue:
                        self._feed(worker)
                    if worker.queue:
                        selector.register(worker.channel, selectors.EVENT_READ, worker)
                ready = [key.data for key, _ in selector.select(_POLL_S)]
            for worker in ready:
                for result in self._listen(worker):
                    self.left -= 1
                    yield result
            for worker in [w for w in self.pool._workers if w.queue]:
                for result in self._enforce(worker):
                    self.left -= 1
                    yield result

    # -- work out -----------------------------------------------------------------------

    def _feed(self, worker: _Worker) -> None:
        """Give an idle worker its next jobs."""
        if worker.judged >= _JUDGED_PER_WORKER:
            self.pool._replace(worker)
            return  # its successor is fed in the next round
        numbers = self._take()
        if not numbers:
            return
        worker.queue, worker.began = numbers, None
        lines = [[n, job.kind, job.answer, job.part] for n, job in ((n, self.jobs[n]) for n in numbers)]
        try:
            worker.channel.settimeout(_SEND_S)
            worker.channel.sendall(json.dumps(lines).encode() + b"\n")
            worker.channel.setblocking(False)
        except OSError:  # it died while idle; its jobs are innocent
            self.again.extend(numbers)
            self.pool._replace(worker)
            return
        worker.heard_at = time.monotonic()

    def _take(self) -> list[int]:
        if self.alone:
            return [self.alone.popleft()]
        share = max(
            1, self.left // (4 * len(self.pool._workers))
        )  # so that no worker ends long after the others
        numbers: list[int] = []
        chars = 0
        while len(numbers) < min(share, _CHUNK_ANSWERS) and chars < _CHUNK_CHARS:
            if self.again:
                number = self.again.popleft()
            elif self.next < len(self.jobs):
                number, self.next = self.next, self.next + 1
            else:
                break
            numbers.append(number)
            chars += len(self.jobs[number].answer.text)
        return numbers

    # -- news in ------------------------------------------------------------------------

    def _listen(self, worker: _Worker) -> list[tuple[int, Graded]]:
        """Read what a worker has sent; if it died, deal with its jobs."""
        results: list[tuple[int, Graded]] = []
        if worker not in self.pool._workers:
            return results
        alive = self._receive(worker)
        while (end := worker.buffer.find(b"\n")) >= 0:
            message = json.loads(bytes(worker.buffer[:end]))
            del worker.buffer[: end + 1]
            worker.heard_at, worker.began, worker.ready = time.monotonic(), message["began"], True
            worker.judged += message["began"] is not None
            for number, verdict, extracted in message["done"]:
                worker.queue.remove(number)
                results.append((number, Graded(verdict, extracted)))
        if not alive and worker.queue and worker.ready:
            results += self._convict(worker, "error")
        elif not alive and worker.queue:  # it never came to life
            self.stillborn += 1
            if self.stillborn > _MAX_STILLBORN:
                raise StageError(
                    "verification: its worker processes end before they begin. Check rewards.memory_bytes."
                )
            self.alone.extend(worker.queue)
            self.pool._replace(worker)
        elif not alive:
            self.pool._replace(worker)
        return results

    @staticmethod
    def _receive(worker: _Worker) -> bool:
        """Take all bytes that are there; False when the worker has closed its end."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while True:
                data = worker.channel.recv(1 << 18)
                if not data:
                    return False
                worker.buffer += data
        return True

    # -- limits -------------------------------------------------------------------------

    def _enforce(self, worker: _Worker) -> list[tuple[int, Graded]]:
        """End a worker that is over a limit, unless it has just answered."""
        taken_s = time.monotonic() - worker.heard_at
        if not worker.ready:  # its own start is not on the answer's account
            if taken_s > _START_S:
                self.again.extend(worker.queue)
                self.pool._replace(worker)
            return []
        if taken_s > self.pool.timeout_s:
            verdict: Verdict = "timeout"
        elif taken_s > _WATCH_AFTER_S and _resident_bytes(worker.pid) > self.pool.memory_bytes:
            verdict = "error"
        else:
            return []
        heard_at = worker.heard_at
        results = self._listen(worker)
        if worker not in self.pool._workers:  # it died meanwhile
            return results
        if worker.heard_at == heard_at:
            return results + self._convict(worker, verdict)
        if verdict == "error":  # too large, but what made it so is done
            self.again.extend(worker.queue)
            self.pool._replace(worker)
        return results

    def _convict(self, worker: _Worker, verdict: Verdict) -> list[tuple[int, Graded]]:
        """End a worker: the job it was at gets the verdict, those behind it go elsewhere.

        Where it is not known which job it was at, all are tried again, each alone.
        """
        guilty = worker.began if worker.began in worker.queue else None
        if guilty is None and len(worker.queue) == 1:
            guilty = worker.queue[0]
        others = [number for number in worker.queue if number != guilty]
        (self.alone if guilty is None else self.again).extend(others)
        self.pool._replace(worker)
        reason = None if verdict == "timeout" else "the process ended or outgrew its memory"
        return [] if guilty is None else [(guilty, Graded(verdict, reason))]


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):  # it is gone: the closed channel will tell
        return 0
