"""`advdistill up`: a server, the deployments and a worker per pool, until Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from advdistill_core.errors import InputError, StageError
from advdistill_core.home import home
from advdistill_core.store.locks import file_lock
from flows.deployments import CPU, GPU
from flows.server import LocalServer, connect
from flows.tied import OWNER

_STOP_S = 20.0
_WATCH_S = 1.0
_ANSWER_S = 10.0
_FIND_S, _END_S = 5.0, 90.0
_POLL_S = 0.2
LOCK = "up.lock"
_FLOWS = 4
#: Of a worker here: it asks often, since the server is near, and listens to nobody else.
WORKER_ENVIRONMENT = {
    "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_PREFETCH_SECONDS": "2",
    "PREFECT_RUNNER_POLL_FREQUENCY": "3",
}


@dataclass
class _Worker:
    name: str
    pool: str
    process: "subprocess.Popen[bytes]"


@dataclass
class _Machine:
    """The server of this machine, unless the environment names another, and the workers of `up`."""

    server: LocalServer | None
    workers: list[_Worker] = field(default_factory=list)

    @property
    def owns_server(self) -> bool:
        """Whether `up` started it, rather than a run before."""
        return self.server is not None and self.server.started

    @property
    def promise(self) -> str:
        """What Ctrl-C will do."""
        if self.owns_server:
            return "Ctrl-C stops everything."
        if self.server:
            return "Ctrl-C stops the workers; the server, which ran before, stays until `advdistill down`."
        return "Ctrl-C stops the workers; the server of PREFECT_API_URL stays."


def up(root: str, gpus: int = 1, as_json: bool = False) -> None:
    """Start what is missing, print the address of the UI and stay until interrupted.

    Runs that an earlier `up` left unfinished continue: those that it was interrupted in
    when it ended, or those that died with it.

    Raises:
        InputError: another `up` runs on this home.
        StageError: the server ended by itself.
    """
    lock = home() / LOCK
    with _interruptible(), file_lock(lock, _refuse_second):
        lock.write_text(str(os.getpid()), encoding="ascii")  # for `end`
        server = _start_server()
        machine = _Machine(server)
        try:
            from flows.commands.deploy import deploy

            if server:
                doing = "Starting" if server.started else "Finding"
                print(f"{doing} the Prefect server ...", file=sys.stderr, flush=True)
                server.wait()
            deploy(root, gpus, flows=_FLOWS)
            if machine.owns_server:
                _continue_runs("its process ended with an earlier `advdistill up`")
            machine.workers.append(_start_worker(CPU, 0))
            machine.workers += [_start_worker(GPU, i) for i in range(gpus)]
            ui = os.environ["PREFECT_API_URL"].removesuffix("/api") + "/v2/deployments"
            if as_json:
                print(
                    json.dumps({"ui": ui, "root": root, "workers": [w.name for w in machine.workers]}),
                    flush=True,
                )
            else:
                print(f"Prefect UI: {ui}\nArtifacts: {root}\n{machine.promise}", flush=True)
            _watch(machine)
        except KeyboardInterrupt:
            print("Stopping; `advdistill up` continues unfinished runs.", flush=True)
        finally:
            _stop(machine)


def end() -> bool:
    """End the `up` of this home as Ctrl-C does and wait for it; returns whether there was one.

    Raises:
        StageError: it cannot be reached from here, or has not ended in time.
    """
    lock = home() / LOCK
    told, deadline = False, time.monotonic() + _FIND_S
    while time.monotonic() < deadline:
        with suppress(_HeldError), file_lock(lock, _is_held):
            return told
        pid = _holder(lock)
        if pid and not told:  # once: a second signal would interrupt its tidying up
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            told, deadline = True, time.monotonic() + _END_S
        time.sleep(_POLL_S)
    raise StageError("advdistill up: it still runs. End it with Ctrl-C, then try again.")


class _HeldError(Exception):
    """Somebody holds the lock of `up`."""


def _is_held() -> None:
    raise _HeldError


def _holder(lock: Path) -> int | None:
    """The process that wrote itself into the lock, unless that is one of an earlier time."""
    try:
        pid = int(lock.read_text(encoding="ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"up" in command.split(b"\0") else None


def _refuse_second() -> None:
    raise InputError(
        "advdistill up", str(home()), "a home without another `up`", "End that one, or set ADVDISTILL_HOME."
    )


def _start_server() -> LocalServer | None:
    if os.environ.get("PREFECT_API_URL"):
        connect()
        return None
    server = LocalServer()
    os.environ["PREFECT_API_URL"] = server.start(tied=True)
    os.environ.update(server.environment())
    if server.last_port:
        print(f"Somebody else has port {server.last_port} now; the address is a new one.", file=sys.stderr)
    return server


def _start_worker(pool: str, number: int) -> _Worker:
    """A worker in a process group of its own, so that Ctrl-C reaches it through us.

    One of the GPU pool runs one stage at a time. The flows are limited by their pool: a
    worker with a limit of its own dies when a run is retried before its process has ended.
    """
    name = f"{pool}-{number}"
    folder = home() / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **WORKER_ENVIRONMENT, OWNER: str(os.getpid())}
    if pool == GPU and "CUDA_VISIBLE_DEVICES" not in os.environ:
        environment["CUDA_VISIBLE_DEVICES"] = str(number)
    command = ["prefect", "worker", "start", "--type", "process"]
    command += ["--pool", pool, "--name", name, *(["--limit", "1"] if pool == GPU else [])]
    with open(folder / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.tied", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    return _Worker(name, pool, process)


def _watch(machine: _Machine) -> None:
    """Start again a worker that died; give up when the server does."""
    while True:
        time.sleep(_WATCH_S)
        for i, worker in enumerate(machine.workers):
            if worker.process.poll() is not None:
                print(f"Worker {worker.name} ended with {worker.process.returncode}; starting it again.")
                number = int(worker.name.rpartition("-")[2])
                machine.workers[i] = _start_worker(worker.pool, number)
        if machine.server and not machine.server.running():
            raise StageError(f"Prefect server: it ended. Its log is {machine.server.log}.")


def _stop(machine: _Machine) -> None:
    """End the workers with their runs, leave those runs to be continued, end the server."""
    for worker in machine.workers:
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    for worker in machine.workers:
        try:
            worker.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
    if machine.server and machine.owns_server:
        if machine.workers and machine.server.running():
            # Only for people who look at the server's records: the next `up` does the same.
            # A server that lost its clients in the middle of a write may not answer for minutes.
            asking = threading.Thread(target=_continue_stopped, daemon=True)
            asking.start()
            asking.join(_ANSWER_S)
        machine.server.stop()


def _continue_stopped() -> None:
    from prefect.exceptions import PrefectException

    with suppress(httpx.HTTPError, PrefectException):
        _continue_runs("`advdistill up` was stopped")


def _continue_runs(why: str) -> None:
    """Schedule again the runs of our pools that nobody executes any more."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry, Cancelled, State

    active = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=active)),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[CPU, GPU])),
        ):
            cancelling = run.state is not None and run.state.is_cancelling()
            state: State[Any] = Cancelled(message=why) if cancelling else AwaitingRetry(message=why)
            client.set_flow_run_state(run.id, state, force=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this as Ctrl-C does, also where a shell had them ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
