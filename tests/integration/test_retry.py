"""Retry continues at the failed stage; `from_stage` makes a stage and what follows anew."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pool_stack import Stack, ask, damage
from server_fixture import Cli

from advdistill_core.models import tiny
from flows.server import LocalServer

pytestmark = pytest.mark.server


def student_folder(folder: Path) -> Path:
    """A student of our own, which can be broken and mended."""
    folder.mkdir()
    tiny.build(folder)
    return folder


def record(root: Path, run: str) -> dict[str, Any]:
    return dict(json.loads((root / "runs" / f"{run}.json").read_text()))


def outcomes(root: Path, run: str) -> dict[str, str]:
    return {label: stage["outcome"] for label, stage in record(root, run)["stages"].items()}


@pytest.mark.slow
def test_retry_after_a_failure_in_training(stack: Stack, tmp_path: Path) -> None:
    """The student's weights are damaged, then mended: earlier stages are taken from the cache."""
    root, folder = tmp_path / "store", student_folder(tmp_path / "student")
    weights = folder / "model.safetensors"
    good = damage(weights)
    run = stack.trigger("train/default", root, f"student.model={folder}", placement="local")
    assert stack.wait(run)["type"] == "FAILED"
    before = outcomes(root, run)
    assert {"load", "generate", "verify", "weigh"} <= set(before)
    assert set(before.values()) == {"ran"}
    assert "train" not in before
    assert record(root, run)["error"]

    weights.write_bytes(good)
    stack.settle()
    stack.set_state(run, "SCHEDULED", "AwaitingRetry")
    stack.until(lambda: record(root, run)["state"] != "failed", 60, "the retry to begin")
    assert stack.wait(run)["type"] == "COMPLETED", stack.state(run)
    assert outcomes(root, run) == dict.fromkeys(before, "cached") | {"train": "ran"}
    body = {
        "flow_runs": {"id": {"any_": [run]}},
        "task_runs": {"state": {"name": {"any_": ["Cached"]}}},
    }
    stack.until(
        lambda: len(ask("POST", f"{stack.api}/task_runs/filter", json=body)) == len(before),
        30,
        "Cached in the UI",
    )


def test_from_stage_runs_a_stage_and_what_follows(cli: Cli, tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        "from flows import catalog\n"
        "from flows.train import train_flow\n"
        "config = catalog.load('smoke', [], sys.argv[1])\n"
        "runs = [train_flow(config), train_flow(config, from_stage='weigh'), train_flow(config)]\n"
        "print(json.dumps([{n: s['outcome'] for n, s in r['stages'].items()} for r in runs]))\n"
    )
    (tmp_path / "store").mkdir()
    environment = {**cli.environment(), "PREFECT_API_URL": LocalServer(cli.home).start()}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fresh, again, last = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(fresh.values()) == {"ran"}
    assert again == dict.fromkeys(fresh, "cached") | dict.fromkeys(["weigh", "train"], "ran")
    assert set(last.values()) == {"cached"}
