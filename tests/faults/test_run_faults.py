"""Whole runs, as a user starts them, while the Prefect server or the run itself is in trouble."""

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lab import chance_of, may_mount, small_disk
from matrix import note
from server_fixture import Cli, running_server

from advdistill_core.store import Store
from flows.server import LocalServer, healthy

pytestmark = [pytest.mark.server, pytest.mark.slow]

#: A stage of each kind: in the run's process or in one of its own, early and late.
STAGES = ["load", "evaluate", "generate", "verify", "train", "publish"]
SMALL = ["--set", "teacher.device=cpu", "--set", "student.checkpoint_every_steps=2"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with running_server(tmp_path_factory.mktemp("home")) as ready:
        yield ready


@pytest.fixture(scope="module")
def whole(server: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing disturbed; ADVDISTILL_FAULT_STORE keeps one for further calls."""
    kept = os.environ.get("ADVDISTILL_FAULT_STORE")
    root = Path(kept) if kept else tmp_path_factory.mktemp("undisturbed") / "store"
    server.json("run", "smoke", "--root", str(root), *SMALL)
    return root


class Run:
    """A run in which the artifacts of one stage are still to be made."""

    def __init__(self, cli: Cli, whole: Path, root: Path, stage: str) -> None:
        self.cli, self.root, self.whole, self.stage = cli, root, whole, stage
        shutil.copytree(whole, root, dirs_exist_ok=True)
        shutil.rmtree(root / stage)
        shutil.rmtree(root / ".locks")
        self.finished = contents(root)
        self.process = cli.start(*self.command)

    @property
    def command(self) -> list[str]:
        return ["run", "smoke", "--root", str(self.root), *SMALL]

    def until_in_stage(self) -> "Run":
        """Wait until the stage is being made."""
        deadline = time.monotonic() + 200
        while not list(self.root.glob(f".locks/{self.stage}-*.lock")):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self

    def end(self) -> tuple[int, str]:
        """The exit code, and the last line that the user sees."""
        _, err = self.process.communicate(timeout=400)
        assert "Traceback" not in err, err[-3000:]
        return self.process.returncode, (err.strip().splitlines() or [""])[-1]

    def check(self) -> str:
        """Nothing that was finished is lost; the same command gives the undisturbed tables."""
        there = contents(self.root)
        assert {name: there.get(name) for name in self.finished} == self.finished
        summary = self.cli.json(*self.command)
        assert contents(self.root) == contents(self.whole)
        labels = [s["outcome"] for s in summary["stages"].values() if s["stage"] == self.stage]
        return ", ".join(sorted(set(labels)))


def contents(root: Path) -> dict[str, str]:
    """Content hash of every whole artifact but the report, which tells times."""
    store, found = Store(str(root), deep_verify=True), {}
    for path in sorted(root.glob("*/*/manifest.json")):
        ref = store.find(path.parts[-3], path.parts[-2])
        if ref and ref.stage != "publish":
            found[f"{ref.stage}/{ref.fingerprint}"] = ref.content_hash
    return found


def restart(cli: Cli, away_s: float) -> None:
    """Kill the server and start it again on its port."""
    local = LocalServer(cli.home)
    address, pid = local.address(), local._read_record()
    assert pid
    os.killpg(pid.pid, signal.SIGKILL)
    time.sleep(away_s)
    assert local.start(tied=True) == address
    deadline = time.monotonic() + 120
    while not healthy(address):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("stage", STAGES)
def test_the_server_restarts(server: Cli, whole: Path, tmp_path: Path, stage: str) -> None:
    run = Run(server, whole, tmp_path / "store", stage).until_in_stage()
    time.sleep(chance_of(stage, "restart").uniform(0, 1))
    restart(server, 5)
    code, line = run.end()
    print(code, line)
    note(f"a run, in {stage}", "server restart", f"{code} → {run.check()}")


@pytest.mark.parametrize("stage", STAGES)
def test_the_servers_database_is_locked(server: Cli, whole: Path, tmp_path: Path, stage: str) -> None:
    """Another process holds SQLite's lock for 20 s."""
    run = Run(server, whole, tmp_path / "store", stage).until_in_stage()
    held = sqlite3.connect(server.home / "prefect" / "prefect.db", timeout=60, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    time.sleep(20)
    held.execute("ROLLBACK")
    held.close()
    code, line = run.end()
    print(code, line)
    note(f"a run, in {stage}", "database locked", f"{code} → {run.check()}")


@pytest.mark.parametrize("stage", ["load", "generate", "publish"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_the_run_is_ended(server: Cli, whole: Path, tmp_path: Path, stage: str, sent: signal.Signals) -> None:
    """The run's process is ended, and with it the one that its stage runs in."""
    run = Run(server, whole, tmp_path / "store", stage).until_in_stage()
    time.sleep(chance_of(stage, sent.name).uniform(0, 0.5))
    children = psutil.Process(run.process.pid).children(recursive=True)
    run.process.send_signal(sent)
    code, line = run.end()
    assert not psutil.wait_procs(children, timeout=5)[1], "a process outlived the run"
    if code or stage != "publish":  # the last stage may have been done before the signal came
        assert code == (-sent if sent == signal.SIGKILL else 128 + sent)
    if code > 0:
        assert line.startswith("advdistill: "), line
        assert "the same command" in line
    note(f"a run, in {stage}", sent.name, f"{code} → {run.check()}")


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
@pytest.mark.parametrize("stage", ["load", "train"])
def test_the_runs_disk_is_full(server: Cli, whole: Path, tmp_path: Path, stage: str) -> None:
    """Neither the stage nor the run's own record can be written."""
    with small_disk(tmp_path / "disk", "400m") as disk:  # the run asks for 200 MB at its start
        run = Run(server, whole, disk / "store", stage).until_in_stage()
        fill(disk / "filler")
        code, line = run.end()
        assert code == 1
        assert line.startswith("advdistill: ")
        assert "No space left on device" in line
        (disk / "filler").unlink()
        note(f"a run, in {stage}", "disk full", f"1 → {run.check()}")


@pytest.mark.parametrize("stage", ["load", "train"])
def test_the_runs_store_is_gone(server: Cli, whole: Path, tmp_path: Path, stage: str) -> None:
    root, away = tmp_path / "store", tmp_path / "away"
    run = Run(server, whole, root, stage).until_in_stage()
    root.rename(away)
    code, line = run.end()
    assert code == 1
    assert line.startswith("advdistill: "), line
    written = [p for p in root.rglob("*") if p.is_file() and ".records" not in p.parts]  # Prefect's index
    assert not written, "written in the place of a store that is gone"
    shutil.rmtree(root, ignore_errors=True)
    away.rename(root)
    note(f"a run, in {stage}", "store gone and back", f"1 → {run.check()}")


def fill(path: Path) -> None:
    """Write until nothing more fits on the disk."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
