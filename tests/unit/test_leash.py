"""A leash ends what it holds: when that ends, when it is told to, when its parent is gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
# Starts a process that leaves the group and one that does not listen, tells who they are, stays.
PARENT = (
    "import subprocess, sys, time\n"
    "sleep = [sys.executable, '-c', 'import time; time.sleep(300)']\n"
    "deaf = 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(300)'\n"
    "away = subprocess.Popen(sleep, start_new_session=True)\n"
    "stubborn = subprocess.Popen([sys.executable, '-c', deaf], stdout=subprocess.PIPE)\n"
    "stubborn.stdout.readline()\n"
    "open(sys.argv[1], 'w').write(f'{away.pid} {stubborn.pid}')\n"
    "time.sleep(float(sys.argv[2]))\n"
    "sys.exit(3)\n"
)


def leashed(*command: str, parent: int | None = None) -> "subprocess.Popen[bytes]":
    start = [sys.executable, "-m", "advdistill_core.leash", str(parent or os.getpid()), "1"]
    return subprocess.Popen([*start, *command], start_new_session=True)


def wait(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("how", ["by itself", "told", "killed"])
def test_nothing_stays_however_the_command_ends(tmp_path: Path, how: str) -> None:
    file = tmp_path / "pids"
    leash = leashed(sys.executable, "-c", PARENT, str(file), "0.2" if how == "by itself" else "300")
    wait(lambda: file.exists() and file.read_text().count(" ") == 1)
    pids = [int(pid) for pid in file.read_text().split()]
    assert all(map(alive, pids)) or how == "by itself"
    if how == "told":
        leash.terminate()
    if how == "killed":
        psutil.Process(pids[1]).parent().kill()  # type: ignore[union-attr]
    assert leash.wait(30) == {"by itself": 3, "told": 128 + 15, "killed": 128 + 9}[how]
    assert not any(map(alive, pids))


def test_the_end_of_the_parent_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    start = [sys.executable, "-m", "advdistill_core.leash", "PARENT", "1", sys.executable, "-c", PARENT]
    code = (
        "import os, subprocess, sys, time\n"
        "command = [str(os.getpid()) if a == 'PARENT' else a for a in sys.argv[1:]]\n"
        "subprocess.Popen(command, start_new_session=True); time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, *start, str(file), "300"])
    wait(lambda: file.exists() and file.read_text().count(" ") == 1)
    pids = [int(pid) for pid in file.read_text().split()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait(lambda: not any(map(alive, pids)))


def test_a_parent_that_is_gone_already_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    assert leashed(sys.executable, "-c", PARENT, str(file), "300", parent=1).wait(30) == 1
    assert not file.exists()
