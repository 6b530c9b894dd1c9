"""Several processes on one generation: faster together, and none of them is needed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from counting_endpoint import CountingEndpoint

from advdistill_core.config import DistillConfig
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Artifact, ArtifactRef, Store

Row = dict[str, Any]
K = 2

# Waits for the word to go, so that the time to start a process is not measured.
_SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
import test_generate_workers as me
from advdistill_core.teachers import endpoint, stage
folder = Path(sys.argv[2])
me.load(folder, me.read_config(folder))
(folder / f"ready-{sys.argv[3]}").touch()
while not (folder / "go").exists():
    time.sleep(0.005)
me.generate(folder, me.read_config(folder))
"""


def read_config(folder: Path) -> DistillConfig:
    return DistillConfig.model_validate_json((folder / "config.json").read_text())


def load(folder: Path, config: DistillConfig) -> ArtifactRef:
    return run_stage(LOAD, config, {}, Store(str(folder / "store")))


def generate(folder: Path, config: DistillConfig) -> Artifact:
    store, loaded = Store(str(folder / "store")), load(folder, config)
    return store.open(run_stage(GENERATE, config, {"prompts": loaded}, store))


class Crew:
    """Worker processes of one generation."""

    def __init__(self, folder: Path, num: int, urls: Sequence[str], workers: int, **teacher: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        document = {
            "prompts": {"num_train": num, "num_heldout": 1},
            "teacher": {
                "backend": "openai", "model": "m", "base_url": urls[0], "more_base_urls": list(urls[1:]),
                "k": K, "shard_size": 2, "concurrency": 4, "workers": workers, **teacher,
            },
        }  # fmt: skip
        self.config = DistillConfig.model_validate(document)
        (folder / "config.json").write_text(json.dumps(document))
        self.processes = [self.start(number) for number in range(workers)]
        self.until(lambda: len(list(folder.glob("ready-*"))) == workers)
        (folder / "go").touch()
        self.began = time.monotonic()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something while all workers live."""
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.processes), "one ended too early"
            time.sleep(0.005)

    def start(self, number: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", _SCRIPT, str(Path(__file__).parent), str(self.folder), str(number)]
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(command, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def wait(self) -> float:
        """Seconds from the word to go until all have ended."""
        for process in self.processes:
            assert process.wait(120) == 0, (self.folder / "log").read_text()
        return time.monotonic() - self.began

    def result(self) -> Artifact:
        """The artifact, which is there."""
        found = generate(self.folder, self.config)
        rows = found.table().to_pylist()
        assert len({(r["prompt_id"], r["sample_id"]) for r in rows}) == len(rows) == found.manifest.rows
        assert not any(row["finish_reason"] == "error" for row in rows)
        return found


class Meeting:
    """Nobody is answered before all endpoints have been asked.

    A worker that starts some seconds after the other, on a busy machine, changes nothing.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.urls: set[str] = set()
        self.is_full = threading.Event()

    def join(self, url: str) -> None:
        self.urls.add(url)
        if len(self.urls) == self.expected:
            self.is_full.set()
        assert self.is_full.wait(60), f"only {self.urls} were asked"


class Together(CountingEndpoint):
    """An endpoint of a meeting."""

    def __init__(self, meeting: Meeting, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.meeting = meeting

    def answer(self, body: dict[str, Any]) -> bytes:
        self.meeting.join(self.url)
        return super().answer(body)


def two_endpoints(seconds: float) -> tuple[Together, Together]:
    meeting = Meeting(2)
    return Together(meeting, seconds, at_once=4), Together(meeting, seconds, at_once=4)


def seconds_of(*servers: CountingEndpoint) -> float:
    """From the first request to the last answer, and forget them."""
    times = [time for server in servers for time in server.times]
    for server in servers:
        server.times.clear()
    return max(times) - min(times)


def test_two_workers_are_about_twice_as_fast(tmp_path: Path) -> None:
    num = 64
    with CountingEndpoint(0.5, at_once=4) as alone:
        Crew(tmp_path / "alone", num, [alone.url], 1).wait()
        alone_s = seconds_of(alone)
        assert alone.num_asked == num * K
    one, two = two_endpoints(0.5)
    with one, two:
        together = Crew(tmp_path / "together", num, [one.url, two.url], 2)
        together.wait()
        together_s = seconds_of(one, two)
        print(f"one worker {alone_s:.1f} s, two workers {together_s:.1f} s: {alone_s / together_s:.2f}x")
        asked = one.asked + two.asked
        assert set(asked.values()) == {K}  # each response once
        assert len(asked) == num
        assert min(one.num_asked, two.num_asked) > num * K / 4
    assert together.result().manifest.rows == num * K
    assert alone_s / together_s > 1.5


@pytest.mark.parametrize("victim", ["leader", pytest.param("helper", marks=pytest.mark.slow)])
def test_one_is_killed_and_the_other_finishes_all(tmp_path: Path, victim: str) -> None:
    num = 120
    one, two = two_endpoints(0.2)
    with one, two:
        crew = Crew(tmp_path, num, [one.url, two.url], 2)
        crew.until(lambda: min(one.num_asked, two.num_asked) >= 16)
        held = {p.pid: holds_the_lock(p.pid, tmp_path) for p in crew.processes}
        assert sorted(held.values()) == [False, True]
        killed = next(p for p in crew.processes if held[p.pid] == (victim == "leader"))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        crew.processes.remove(killed)
        assert not list(tmp_path.glob("store/generate/*/manifest.json"))
        crew.wait()
        asked = one.num_asked + two.num_asked
    assert crew.result().manifest.rows == num * K
    print(f"{asked} samples asked, {num * K} in the table")
    assert num * K <= asked <= num * K + 4 * K  # what was under way when it was killed


def holds_the_lock(pid: int, root: Path) -> bool:
    """Whether a process has the lock of the artifact."""
    (lock,) = root.glob("store/.locks/generate-*.lock")
    number = str(lock.stat().st_ino)
    return any(
        f" {pid} " in line and line.split(":")[-1].split()[0] == number and "->" not in line
        for line in Path("/proc/locks").read_text().splitlines()
    )


@pytest.mark.slow
def test_a_worker_that_does_not_get_on_is_no_obstacle(tmp_path: Path) -> None:
    """Stopped, not killed: it keeps its claims, and its shards are made without it."""
    num = 120
    one, two = two_endpoints(0.2)
    with one, two:
        crew = Crew(tmp_path, num, [one.url, two.url], 2, stalled_after_s=2.0)
        crew.until(lambda: min(one.num_asked, two.num_asked) >= 8)
        helper = next(p for p in crew.processes if not holds_the_lock(p.pid, tmp_path))
        helper.send_signal(signal.SIGSTOP)
        try:
            crew.processes.remove(helper)
            crew.wait()
            before = crew.result().manifest
        finally:
            helper.send_signal(signal.SIGCONT)
        assert helper.wait(60) == 0, (tmp_path / "log").read_text()
    assert crew.result().manifest == before
    assert before.rows == num * K
