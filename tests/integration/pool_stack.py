"""A server with the deployments, and workers that a test can kill."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import safetensors.numpy
import tenacity
from server_fixture import Cli

from flows import catalog
from flows.commands.up import WORKER_ENVIRONMENT
from flows.deployments import parameters
from flows.server import LocalServer

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def ask(method: str, url: str, **options: Any) -> Any:
    """A request that is repeated while the server is busy, as Prefect's own client does.

    A server on SQLite may keep a request as long as the database's 60 s of waiting for its
    lock, so one that got no answer is sent again. Nothing that is sent twice here does harm:
    a run is created under an idempotency key, a state is set to what it was to be.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_busy),
        wait=tenacity.wait_random(0.2, 2),
        stop=tenacity.stop_after_attempt(20),
        reraise=True,
    )
    answer = retrying(_ask_once, method, url, **options)
    return answer.json() if answer.content else None


def _ask_once(method: str, url: str, **options: Any) -> httpx.Response:
    return httpx.request(method, url, timeout=20, **options).raise_for_status()


def _is_busy(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    return isinstance(error, httpx.TimeoutException)


def damage(weights: Path) -> bytes:
    """Make a model whose files look whole and which cannot be loaded; returns what was there."""
    good = weights.read_bytes()
    tensors = safetensors.numpy.load(good)
    tensors["model.embed_tokens.weight"] = np.zeros((3, 3), np.float32)
    weights.write_bytes(safetensors.numpy.save(tensors, {"format": "pt"}))
    return good


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@dataclass
class Worker:
    """A Prefect worker in a session of its own."""

    process: "subprocess.Popen[bytes]"
    pool: str

    def family(self) -> list[psutil.Process]:
        """The worker and everything that descends from it."""
        try:
            worker = psutil.Process(self.process.pid)
            return [worker, *worker.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL the worker alone."""
        self.process.kill()
        self.process.wait()

    def kill_machine(self) -> list[psutil.Process]:
        """SIGKILL the worker with all its descendants, as a power cut does; returns them."""
        family = self.family()
        for process in family:
            process.kill()
        self.process.wait()
        return family


@dataclass
class Stack:
    """A Prefect server with everything deployed."""

    cli: Cli
    api: str
    workers: list[Worker] = field(default_factory=list)

    def worker(self, pool: str, name: str) -> Worker:
        environment = {**self.cli.environment(), **WORKER_ENVIRONMENT, "PREFECT_API_URL": self.api}
        environment |= {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(self.cli.home / "prefect")}
        command = [sys.executable, "-m", "flows.tied", str(os.getpid())]
        command += ["prefect", "worker", "start", "--type", "process"]
        with open(self.cli.home / f"worker-{name}.log", "ab") as log:
            process = subprocess.Popen(
                [*command, "--pool", pool, "--name", name, *(["--limit", "1"] if pool == "gpu" else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        worker = Worker(process, pool)
        self.workers.append(worker)
        return worker

    def trigger(
        self, deployment: str, root: Path, *overrides: str, placement: str = "pools", **extra: Any
    ) -> str:
        """Start a run of a deployment with the smoke recipe through the API."""
        config = parameters(catalog.load("smoke", list(overrides)).model_dump(mode="json"), str(root))
        config["placement"] = placement
        found = ask("GET", f"{self.api}/deployments/name/{deployment}")
        body: dict[str, Any] = {"parameters": {"config": config, **extra}, "state": {"type": "SCHEDULED"}}
        body["idempotency_key"] = uuid.uuid4().hex
        return str(ask("POST", f"{self.api}/deployments/{found['id']}/create_flow_run", json=body)["id"])

    def settle(self) -> None:
        """Wait until no flow's process is left and the worker has reported its end.

        A retry that comes before is overwritten by that report; people are not that fast.
        """
        engines = [p for w in self.workers for p in w.family() if _runs(p, "prefect.engine")]
        self.until(lambda: not any(p.is_running() for p in engines), 60, "the flow's process to end")
        time.sleep(5)

    def state(self, run: str) -> dict[str, Any]:
        return dict(ask("GET", f"{self.api}/flow_runs/{run}")["state"])

    def set_state(self, run: str, kind: str, name: str | None = None) -> None:
        """What the UI sends for Cancel and Retry."""
        body = {"state": {"type": kind, "name": name}, "force": name == "AwaitingRetry"}
        ask("POST", f"{self.api}/flow_runs/{run}/set_state", json=body)

    def wait(self, run: str, timeout_s: float = 240) -> dict[str, Any]:
        """Wait for a final state."""
        self.until(lambda: self.state(run)["type"] in FINAL, timeout_s, f"run {run} to end")
        return self.state(run)

    def children(self, run: str) -> list[dict[str, Any]]:
        """The runs on the GPU pool that a run started."""
        body = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        return list(ask("POST", f"{self.api}/flow_runs/filter", json=body))

    def logs(self, run: str) -> list[str]:
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        found = ask("POST", f"{self.api}/logs/filter", json=body)
        return [line["message"] for line in found]

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        return list(ask("POST", f"{self.api}/artifacts/filter", json=body))

    def pool_slots_in_use(self, pool: str) -> int:
        body = {
            "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}},
            "work_pools": {"name": {"any_": [pool]}},
        }
        return len(ask("POST", f"{self.api}/flow_runs/filter", json=body))

    @staticmethod
    def until(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
            time.sleep(0.1)

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill_machine()
        self.workers.clear()

    def stop_gpu_workers(self) -> None:
        for worker in [w for w in self.workers if w.pool == "gpu"]:
            worker.kill_machine()
            self.workers.remove(worker)


@contextmanager
def running_stack(cli: Cli, root: Path) -> Iterator[Stack]:
    """Deploy everything on the session's server and start a worker for the flows."""
    ready = Stack(cli, LocalServer(cli.home).start())
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "deploy", "--root", str(root)],
        env={**cli.environment(), "PREFECT_API_URL": ready.api},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ready.worker("cpu", "cpu-0")
    try:
        yield ready
    finally:
        ready.stop()
