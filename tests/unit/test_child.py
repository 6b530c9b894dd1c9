"""A stage in its own process: progress, errors, death, and no orphan."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advdistill_core.child import run_in_child
from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.progress import Event
from advdistill_core.stages import LOAD, WEIGH
from advdistill_core.store import ArtifactRef

ROOT = Path(__file__).resolve().parents[2]


def config(root: Path, **prompts: object) -> DistillConfig:
    (root / "q.csv").write_text("question,answer\n1+1?,2\n2+2?,4\n3+3?,6\n")
    source = {"source": "file", "path": str(root / "q.csv"), "num_train": 2, "num_heldout": 1}
    return DistillConfig.model_validate(
        {"prompts": {**source, **prompts}, "storage": {"root": str(root / "s")}}
    )


def test_result_comes_back(tmp_path: Path) -> None:
    ref = run_in_child(LOAD, config(tmp_path), {})
    assert (ref.stage, ref.rows, ref.outcome) == ("load", 3, "ran")
    assert run_in_child(LOAD, config(tmp_path), {}).outcome == "cached"


def test_the_stages_own_error_comes_back(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_in_child(LOAD, config(tmp_path, answer_column="nope"), {})
    assert "nope" in str(caught.value)


def test_a_crash_is_a_stage_error_with_the_childs_words(tmp_path: Path) -> None:
    ref = ArtifactRef(stage="x", fingerprint="y", uri="z", rows=0, content_hash="h")
    with pytest.raises(StageError, match="exit code 1") as caught:
        run_in_child(WEIGH, config(tmp_path), {"nonsense": ref})
    assert "KeyError" in str(caught.value)


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """A grandparent kills the parent with SIGKILL; the sleeping child goes too."""
    script = (
        "import subprocess, sys, os\n"
        "code = 'import sys, os, time; from advdistill_core.processes import die_with_parent;'\n"
        "code += 'die_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(100)'\n"
        "subprocess.run([sys.executable, '-c', code, str(os.getpid())])\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _running(child):
        time.sleep(0.05)
    assert not _running(child)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_progress_reaches_the_parent(tmp_path: Path) -> None:
    seen: list[Event] = []
    run_in_child(LOAD, config(tmp_path), {}, progress=seen.append)
    assert all(event.stage == "load" for event in seen)
