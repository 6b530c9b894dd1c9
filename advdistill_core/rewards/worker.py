"""The processes that judge answers: a nursery that forks workers, and the workers.

The nursery imports the slow modules once and then forks a worker in milliseconds, so a
hung worker is replaced at once. It runs as a program of its own, not as a fork of the
caller: the caller may have threads, and a forked lock that a thread holds stays held.

Nursery protocol, a JSON message each way on a packet socket: `{"preload": [modules]}`, `{"fork": settings}`
with the worker's socket attached, `{"kill": pid}`. When the caller goes away, by whatever
death, its socket closes and the nursery ends all workers. Only the nursery reaps, and
only when told to, so a process id is never reused while the caller knows it.

Worker protocol, JSON lines: in, a list of jobs `[number, kind, answer fields, part]`; out,
`{"done": [[number, verdict, extracted]...], "began": number | null}`.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_FLUSH_S = 0.05
_ORPHAN_POLL_S = 2.0
_MAX_MESSAGE_BYTES = 1 << 16


def main() -> None:
    """Entry of the nursery: `python -m advdistill_core.rewards.worker FD PARENT_PID`."""
    control = socket.socket(fileno=int(sys.argv[1]))
    parent = int(sys.argv[2])
    workers: set[int] = set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    scratch = tempfile.mkdtemp(prefix="advdistill-verify-")
    try:
        _tend(control, parent, workers, scratch)
    finally:
        for pid in workers:
            _end(pid)
        shutil.rmtree(scratch, ignore_errors=True)


def _tend(control: socket.socket, parent: int, workers: set[int], scratch: str) -> None:
    while True:
        readable, _, _ = select.select([control], [], [], _ORPHAN_POLL_S)
        if not readable:
            if os.getppid() != parent:
                return
            continue
        data, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 1)
        if not data:
            return
        request = json.loads(data)
        reply: dict[str, Any] = {}
        if "preload" in request:
            reply["error"] = _preload(request["preload"])
        elif "fork" in request:
            pid = os.fork()
            if pid == 0:
                control.close()
                _become_worker(descriptors[0], request["fork"], scratch)
            os.close(descriptors[0])
            workers.add(pid)
            reply["pid"] = pid
        elif "kill" in request and request["kill"] in workers:
            _end(request["kill"])
            workers.discard(request["kill"])
            shutil.rmtree(f"{scratch}/{request['kill']}", ignore_errors=True)
        control.sendall(json.dumps(reply).encode())


def _preload(modules: list[str]) -> str | None:
    for module in modules:
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            return f"{module}: {error}"
        warm_up = getattr(loaded, "warm_up", None)
        if module.startswith("advdistill_core.") and warm_up is not None:
            warm_up()  # once, here, instead of in every worker's first answer
    gc.freeze()  # so that the workers' garbage collection leaves shared pages shared
    return None


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _become_worker(descriptor: int, settings: dict[str, Any], scratch: str) -> None:
    """Turn a fork of the nursery into a worker; never returns.

    It works in a folder of its own, which the nursery removes after its end.
    """
    status = 1
    try:
        tempfile.tempdir = f"{scratch}/{os.getpid()}"
        os.mkdir(tempfile.tempdir)
        os.chdir(tempfile.tempdir)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        limit = settings["memory_bytes"]
        # The caller watches the resident size and kills above the limit; this one is the
        # backstop against a single huge allocation. It is wider because math-verify
        # swallows a MemoryError and calls the answer wrong.
        resource.setrlimit(resource.RLIMIT_AS, (2 * limit, 2 * limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _serve(socket.socket(fileno=descriptor), settings["policy"])
        status = 0
    except (BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        status = 0
    finally:
        os._exit(status)


def _serve(channel: socket.socket, policy_fields: dict[str, Any]) -> None:
    from advdistill_core.config import PolicyConfig
    from advdistill_core.rewards.judge import Judge
    from advdistill_core.rewards.types import Answer, Graded, Part

    judge = Judge(PolicyConfig.model_validate(policy_fields))
    done: list[Any] = []
    sent_at = time.monotonic()

    def send(began: int | None) -> None:
        nonlocal sent_at
        channel.sendall(json.dumps({"done": done, "began": began}).encode() + b"\n")
        done.clear()
        sent_at = time.monotonic()

    def decide(number: int, kind: str, answer: Answer, piece: list[Any] | None) -> Graded:
        seen = judge.glance(answer) if kind == "answer" and piece is None else None
        if isinstance(seen, Graded):
            return seen
        send(number)  # from here on it may take long: the time limit runs from now
        if kind == "reference":
            return Graded("correct" if judge.judge_reference(answer) else "error")
        if kind == "second":
            return judge.second_opinion(answer)
        return judge.judge(answer, seen or Part(*(piece or [""])))

    send(None)  # ready
    with channel.makefile("rb") as lines:
        for line in lines:
            for number, kind, fields, piece in json.loads(line):
                task, reference, text, truncated, choices, source = fields
                answer = Answer(task, reference, text, truncated, tuple(choices), source)
                graded = decide(number, kind, answer, piece)
                done.append([number, graded.verdict, graded.extracted])
                if time.monotonic() - sent_at > _FLUSH_S:
                    send(None)
            send(None)


if __name__ == "__main__":
    main()
