"""A run that was killed does not go on running in the list of runs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from advdistill_core.store import Store
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


def states(root: Path) -> dict[str, str]:
    return {run.run_id: run.state for run in read_runs(str(root))}
