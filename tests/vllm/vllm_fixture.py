"""Helpers of the tests with a real vLLM."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from advdistill_core.config import DistillConfig
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Artifact, Store

MODEL = "smollm2-135m-instruct"
#: Starts in half the time; the compiled form is for long runs.
ENGINE: dict[str, Any] = {"extra_arguments": ["--enforce-eager", "--max-num-seqs=64"], "cpu_cache_gib": 1}


@dataclass
class Endpoint:
    """A server that was started by hand."""

    url: str
    model: str
    key: str = ""


START_S, END_S = 400, 30

LONG = [
    "prompts.num_train=60", "teacher.backend=vllm", "teacher.model=smollm2-135m-instruct", "teacher.k=4",
    "teacher.max_new_tokens=300", "teacher.concurrency=2", "teacher.vllm.cpu_cache_gib=1",
    'teacher.vllm.extra_arguments=["--enforce-eager", "--max-num-seqs=64"]',
]  # fmt: skip


def is_at_work(root: Path) -> bool:
    """Whether the stage has kept a response."""
    return any(path.stat().st_size > 0 for path in root.glob("generate/*/work/**/*.jsonl"))


def wait(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.1)
    return found


def settings(root: Path, num: int, **teacher: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "prompts": {"num_train": num, "num_heldout": 1},
            "teacher": {"model": MODEL, "max_new_tokens": 32, "shard_size": 8, **teacher},
            "storage": {"root": str(root)},
        }
    )


def generate(root: Path, num: int, progress: Any = lambda event: None, **teacher: Any) -> Artifact:
    """The generate stage on `num` arithmetic questions."""
    config, store = settings(root, num, **teacher), Store(str(root))
    loaded = run_stage(LOAD, config, {}, store)
    return store.open(run_stage(GENERATE, config, {"prompts": loaded}, store, progress=progress))


class Descendants(threading.Thread):
    """Notes every descendant of this process while it runs, to tell later which still lives."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: dict[psutil.Process, str] = {}
        self._stop_it = threading.Event()
        self._before = set(psutil.Process().children(recursive=True))

    def run(self) -> None:
        while not self._stop_it.wait(0.1):
            self.look()

    def look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            if process not in self._before and process not in self.seen:
                try:
                    self.seen[process] = f"{process.name()} {' '.join(process.cmdline())[:150]}"
                except psutil.Error:
                    continue

    def of_vllm(self) -> dict[int, str]:
        """Those of a managed server that live: the leash, the server, its engine, its workers."""
        self.look()
        return {
            p.pid: what
            for p, what in self.seen.items()
            if alive(p) and any(mark in what.lower() for mark in ("vllm", "leash", "resource_tracker"))
        }

    def engine(self) -> psutil.Process | None:
        return self.named("VLLM::EngineCor")

    def leash(self) -> psutil.Process:
        return next(p for p, what in list(self.seen.items()) if alive(p) and "advdistill_core.leash" in what)

    def server(self) -> psutil.Process:
        """The API server."""
        return next(iter(self.leash().children()))

    def named(self, name: str) -> psutil.Process | None:
        for process in list(self.seen):
            try:
                if alive(process) and process.name().startswith(name):
                    return process
            except psutil.Error:
                continue
        return None

    def stop(self) -> None:
        self._stop_it.set()
        self.join()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
