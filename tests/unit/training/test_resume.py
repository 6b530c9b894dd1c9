"""A training that was ended at any moment continues exactly."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advdistill_core.training import checkpoints

SCRIPT = Path(__file__).with_name("killable.py")
ROOT = Path(__file__).parents[3]
STEPS = 20  # 10 groups, 2 a step, 4 epochs


def train(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240, check=False,
    )  # fmt: skip


def result(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict:
    found = result(train(tmp_path_factory.mktemp("whole")))
    assert [entry["step"] for entry in found["log"]] == list(range(1, STEPS + 1))
    return found


def check_kill(folder: Path, step: int, uninterrupted: dict) -> None:
    killed = train(folder, step, "kill")
    assert killed.returncode == -signal.SIGKILL
    resumed = result(train(folder))
    assert resumed["weights"] == uninterrupted["weights"]
    assert resumed["log"] == uninterrupted["log"]
    redone = step - resumed["first"] + 1 if resumed["first"] else 0
    assert redone <= 3  # the checkpoint interval


def test_killed_at_a_step_the_weights_and_losses_are_the_same_bits(tmp_path, uninterrupted):
    """In an epoch after the first, off a checkpoint; dropout is on."""
    check_kill(tmp_path, 11, uninterrupted)


@pytest.fixture(scope="module")
def both_stages(tmp_path_factory) -> dict:
    found = result(train(tmp_path_factory.mktemp("both"), -1, "both"))
    assert [entry["stage"] for entry in found["log"]] == [1] * STEPS + [2] * 6
    assert sum(entry.get("heldout_loss") is not None for entry in found["log"]) == 4
    assert found["notes"]["early_stopping"]["best_step"] < STEPS  # so the second stage starts before the end
    return found


def kill_soon(folder: Path, steps: int, delay_s: float) -> int:
    """Start a training and end it a while after so many of its steps; its return code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), "-1", "both"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT,
    ) as child:  # fmt: skip
        seen = 0
        while seen < steps and child.stdout.readline().startswith("step"):
            seen += 1
        time.sleep(delay_s)
        child.kill()
        return child.wait()


def test_killed_in_the_second_stage_the_weights_and_losses_are_the_same_bits(tmp_path, both_stages):
    assert kill_soon(tmp_path, STEPS + 4, 0.02) == -signal.SIGKILL
    resumed = result(train(tmp_path, -1, "both"))
    assert resumed["first"] is None or resumed["first"] > STEPS  # the first stage is not done again
    assert {**resumed, "first": 1} == both_stages


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_20_random_moments(tmp_path, both_stages, seed):
    """Four kills a training, whatever it does at the time: a step, an evaluation, a checkpoint."""
    draw, kills = random.Random(seed), 0
    while kills < 4:
        steps = draw.randint(0, 9 if kills < 3 else 5)
        kills += kill_soon(tmp_path, steps, draw.uniform(0, 0.3)) == -signal.SIGKILL
    resumed = result(train(tmp_path, -1, "both"))
    assert {**resumed, "first": 1} == both_stages


def test_killed_while_writing_a_checkpoint_then_stopped_then_torn_on_disk(tmp_path, uninterrupted):
    assert train(tmp_path, 6, "tear").returncode == -signal.SIGKILL
    assert [step for step, _ in checkpoints.numbered(tmp_path)] == [3]
    # a stop request: a checkpoint at once, and a clear message
    stopped = result(train(tmp_path, 7, "stop"))
    assert "asked to stop after step 8 of 20" in stopped["error"]
    assert [step for step, _ in checkpoints.numbered(tmp_path)] == [6, 8]
    # the newest is torn afterwards: the one before is taken
    weights = tmp_path / "checkpoint-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert checkpoints.last_good(tmp_path).name == "checkpoint-6"
    resumed = result(train(tmp_path))
    assert resumed["first"] == 7
    assert (resumed["weights"], resumed["log"]) == (uninterrupted["weights"], uninterrupted["log"])


def make(folder: Path, step: int, content: bytes = b"weights") -> Path:
    staged = folder / "unfinished" / f"checkpoint-{step}"
    staged.mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(content)
    (staged / "rng_state.pth").write_bytes(b"state")
    published = checkpoints.publish(staged, folder)
    shutil.rmtree(folder / "unfinished")
    return published


@pytest.mark.parametrize("damage", ["truncated", "altered", "removed", "no listing", "torn listing"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    make(tmp_path, 10)
    newest = make(tmp_path, 20)
    assert checkpoints.last_good(tmp_path) == newest
    file = newest / "model.safetensors"
    if damage == "truncated":
        file.write_bytes(b"weigh")
    elif damage == "altered":
        file.write_bytes(b"weighty")
    elif damage == "removed":
        file.unlink()
    elif damage == "no listing":
        (newest / "files.json").unlink()
    else:
        (newest / "files.json").write_text('{"model.saf')
    assert checkpoints.last_good(tmp_path) == tmp_path / "checkpoint-10"
    assert make(tmp_path, 20) == newest  # and replaced when that step is reached again
    assert checkpoints.last_good(tmp_path) == newest


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in (5, 100, 10, 20):  # by number, not by name
        make(tmp_path, step)
    checkpoints.keep_newest(tmp_path, 2, best=5)
    assert [step for step, _ in checkpoints.numbered(tmp_path)] == [5, 20, 100]
    assert checkpoints.last_good(tmp_path / "absent") is None
