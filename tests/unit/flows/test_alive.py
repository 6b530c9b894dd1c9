"""A run that was killed does not go on running in the list of runs."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.store import Store
from flows import alive, recorder
from flows.run_record import FOLDER, RunRecord, read_runs

_SCRIPT = """
import sys, time
from advdistill_core.store import Store
from flows import alive
alive.hold(Store(sys.argv[1]), "killed")
open(sys.argv[2], "w").close()
time.sleep(60)
"""


def test_a_killed_run_is_interrupted(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for run_id in ("killed", "older"):
        record = RunRecord(run_id=run_id, name=run_id, state="running", started_at=time.time())
        store.files.write(f"{FOLDER}/{run_id}.json", record.model_dump_json().encode())
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, str(tmp_path), str(tmp_path / "held")])
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert states(tmp_path) == {"killed": "running", "older": "running"}
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states(tmp_path) == {"killed": "interrupted", "older": "running"}  # nothing is known of that one

    assert all(run.seconds is None for run in read_runs(str(tmp_path)))  # nobody knows when it ended


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt(), "interrupted"), (InputError("a", "b", "c", "d"), "failed")]
)
def test_a_run_that_ends_early_says_where_and_after_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str
) -> None:
    def configured(*_: object) -> Callable[..., None]:
        def step(*_: object, **__: object) -> None:
            time.sleep(0.02)
            raise error

        return step

    monkeypatch.setattr(recorder, "end_with_owner", lambda: None)
    monkeypatch.setattr(recorder, "RunPage", Mock())
    monkeypatch.setattr(recorder.RunRecorder, "_configured", configured)
    config = DistillConfig.model_validate({"storage": {"root": str(tmp_path)}})
    with pytest.raises(type(error)):
        recorder.RunRecorder(config).step(Mock(), label="evaluate before")
    (run,) = read_runs(str(tmp_path))
    assert (run.state, run.ended_in) == (state, "evaluate before")
    assert run.seconds is not None
    assert run.seconds >= 0.02


def states(root: Path) -> dict[str, str]:
    return {run.run_id: run.state for run in read_runs(str(root))}


def test_a_run_that_is_looked_at_can_begin(tmp_path: Path) -> None:
    """Who asks whether a run is gone has its lock for an instant."""
    store = Store(str(tmp_path))
    os.close(alive.hold(store, "again"))
    asking = os.open(tmp_path / ".locks" / "run-again.lock", os.O_RDWR)
    fcntl.flock(asking, fcntl.LOCK_EX)
    threading.Timer(0.2, os.close, [asking]).start()
    os.close(alive.hold(store, "again"))
