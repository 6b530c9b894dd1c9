"""`advdistill up` and `down`: who ends whom, and what is promised. Server and workers are stand-ins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from advdistill_core.errors import StageError
from advdistill_core.store.locks import file_lock
from flows import cli
from flows.commands import up
from flows.server import LocalServer

# `up` itself, with workers that only sleep and nothing to deploy on.
SLEEPING_UP = """
import subprocess, sys, types
from flows.commands import up

def start_worker(pool, number):
    sleeping = [sys.executable, "-c", "import time; time.sleep(120)"]
    process = subprocess.Popen(sleeping, start_new_session=True)
    print("worker", process.pid, flush=True)
    return up._Worker(f"{pool}-{number}", pool, process)

sys.modules["flows.commands.deploy"] = types.SimpleNamespace(deploy=lambda *_, **__: {})
up._start_server, up._start_worker = lambda: None, start_worker
up.up("store")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVDISTILL_HOME", str(tmp_path))
    return tmp_path


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def down(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["advdistill", "down"])
    return cli.guarded(cli.app)


def test_down_ends_up_with_its_workers(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", SLEEPING_UP, "up"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )
    try:
        assert running.stdout
        lines = [next(running.stdout) for _ in range(5)]
        workers = [int(line.split()[1]) for line in lines if line.startswith("worker")]
        assert len(workers) == 2
        assert lines[-1].startswith("Ctrl-C stops the workers")
        assert all(alive(pid) for pid in workers)
        assert down(monkeypatch) == 0
        assert capsys.readouterr().out == "Stopped.\n"
        assert not any(alive(pid) for pid in workers), "`down` returned before they had ended"
        assert running.wait(10) == 0
    finally:
        running.kill()
        running.communicate()
    assert down(monkeypatch) == 0
    assert capsys.readouterr().out == "No server was running.\n"


@pytest.mark.parametrize("written", ["", "1", str(os.getpid())], ids=["nobody", "another", "not an up"])
def test_down_says_so_where_it_cannot_end_up(
    home: Path,
    written: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The number in the lock may be left of an earlier time: that process is not touched."""
    monkeypatch.setattr(up, "_FIND_S", 0.3)
    (home / up.LOCK).write_text(written)
    with file_lock(home / up.LOCK):
        assert down(monkeypatch) == 1
    assert "End it with Ctrl-C" in capsys.readouterr().err


def test_up_ends_when_the_server_it_found_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "_WATCH_S", 0.01)
    with pytest.raises(StageError, match="Prefect server: it ended"):
        up._watch(up._Machine(LocalServer()))


def test_what_ctrl_c_does_is_told_as_it_is(home: Path) -> None:
    found, own = LocalServer(), LocalServer()
    own.started = True
    assert up._Machine(own).promise == "Ctrl-C stops everything."
    assert "stays until `advdistill down`" in up._Machine(found).promise
    assert "PREFECT_API_URL stays" in up._Machine(None).promise
    assert all(up._Machine(s).promise.startswith("Ctrl-C") for s in (own, found, None))


def test_a_server_that_was_there_before_is_not_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []
    server = LocalServer()
    monkeypatch.setattr(server, "stop", lambda: stopped.append(True))
    up._stop(up._Machine(server))
    assert not stopped
    server.started = True
    up._stop(up._Machine(server))
    assert stopped
