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
from matrix import RUN, note
from pipeline import STEPS
from server_fixture import Cli, running_server
from whole import Run, Undisturbed

from flows.server import LocalServer, healthy

pytestmark = [pytest.mark.server, pytest.mark.slow]

#: A stage of each kind for what is a matter of the whole run: in its process or another, early and late.
STAGES = ["load", "generate", "train", "publish"]
HELD_S = 3.0
OPERATIONS = 3  # each stage has more of them


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with running_server(tmp_path_factory.mktemp("home")) as ready:
        yield ready


@pytest.fixture(scope="module")
def whole(server: Cli, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(server.home, tmp_path_factory.mktemp("runs") / "store")


def held(whole: Undisturbed, stage: str, fault: str) -> Run:
    """A run that is held up in the middle of a stage, at one of its first file operations."""
    at = chance_of(stage, fault).randint(2, OPERATIONS)  # the first one is its lock
    return Run(whole, stage, held_s=HELD_S, at=at).until_held()


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


@pytest.mark.parametrize("stage", STEPS)
def test_the_server_restarts(server: Cli, whole: Undisturbed, stage: str) -> None:
    run = held(whole, stage, "restart")
    restart(server, 5)
    code, line = run.end()
    print(code, line)
    assert code == 0, line
    note(stage, "server restart", f"{code} → {run.check()}")


@pytest.mark.parametrize("stage", STEPS)
def test_the_servers_database_is_locked(server: Cli, whole: Undisturbed, stage: str) -> None:
    """Another process holds SQLite's lock for 20 s."""
    run = held(whole, stage, "locked")
    lock = sqlite3.connect(server.home / "prefect" / "prefect.db", timeout=60, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    time.sleep(20)
    lock.execute("ROLLBACK")
    lock.close()
    code, line = run.end()
    print(code, line)
    assert code == 0, line
    note(stage, "database locked", f"{code} → {run.check()}")


@pytest.mark.parametrize("stage", STEPS)
def test_an_interruption(whole: Undisturbed, stage: str) -> None:
    """Ctrl-C in the middle of a stage ends the run, and the process that its stage runs in."""
    run = held(whole, stage, "SIGINT")
    children = psutil.Process(run.process.pid).children(recursive=True)
    run.process.send_signal(signal.SIGINT)
    code, line = run.end()
    assert not psutil.wait_procs(children, timeout=5)[1], "a process outlived the run"
    assert code == 128 + signal.SIGINT
    assert line == "advdistill: interrupted; the same command continues where it stopped."
    note(stage, "SIGINT", f"{code} → {run.check()}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_the_run_is_ended(whole: Undisturbed, stage: str, sent: signal.Signals) -> None:
    """The run's process is ended at any moment, and with it the one that its stage runs in."""
    run = Run(whole, stage).until_in_stage()
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
    note(RUN + stage, sent.name, f"{code} → {run.check()}")


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
@pytest.mark.parametrize("stage", STAGES)
def test_the_runs_disk_is_full(whole: Undisturbed, tmp_path: Path, stage: str) -> None:
    """Neither the stage nor the run's own record can be written."""
    with small_disk(tmp_path / "disk", "400m") as disk:  # the run asks for 200 MB at its start
        run = Run(whole, stage, disk / "store").until_in_stage()
        fill(disk / "filler")
        code, line = run.end()
        assert code == 1
        assert line.startswith("advdistill: ")
        assert "No space left on device" in line
        (disk / "filler").unlink()
        note(RUN + stage, "disk full", f"1 → {run.check()}")


@pytest.mark.parametrize("stage", STAGES)
def test_the_runs_store_is_gone(whole: Undisturbed, tmp_path: Path, stage: str) -> None:
    root, away = tmp_path / "store", tmp_path / "away"
    run = Run(whole, stage, root).until_in_stage()
    root.rename(away)
    code, line = run.end()
    assert code == 1
    assert line.startswith("advdistill: "), line
    written = [p for p in root.rglob("*") if p.is_file() and ".records" not in p.parts]  # Prefect's index
    assert not written, "written in the place of a store that is gone"
    shutil.rmtree(root, ignore_errors=True)
    away.rename(root)
    note(RUN + stage, "store gone and back", f"1 → {run.check()}")


def fill(path: Path) -> None:
    """Write until nothing more fits on the disk."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
