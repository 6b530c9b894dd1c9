"""One producer at a time; a dead one frees the lock at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from advdistill_core.store.locks import file_lock

ROOT = Path(__file__).resolve().parents[3]


def holder(path: Path) -> "subprocess.Popen[str]":
    code = (
        "import sys, time, pathlib\n"
        "from advdistill_core.store.locks import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = holder(path)
    waits: list[float] = []

    def kill() -> None:
        waits.append(time.monotonic())
        process.send_signal(signal.SIGKILL)

    with file_lock(path, on_wait=kill):
        assert time.monotonic() - waits[0] < 5
    process.wait()
    assert path.exists()


def test_free_lock_does_not_wait(tmp_path: Path) -> None:
    waited: list[bool] = []
    with file_lock(tmp_path / "a" / "x.lock", on_wait=lambda: waited.append(True)):
        pass
    assert waited == []
