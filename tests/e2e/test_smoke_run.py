"""The whole flow through the command line: fresh, cached, damaged, killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from server_fixture import Cli, kill

from advdistill_core.store import Store
from advdistill_core.store.tables import SCHEMAS

pytestmark = pytest.mark.server

LABELS = [
    "load",
    "gate prompts",
    "evaluate before",
    "generate",
    "gate responses",
    "verify",
    "weigh",
    "train",
    "evaluate after",
    "publish",
]


def outcomes(summary: dict[str, Any]) -> dict[str, str]:
    return {label: stage["outcome"] for label, stage in summary["stages"].items()}


def content_hashes(root: Path) -> dict[str, str]:
    """Content hash of every artifact but the report, which tells times."""
    store = Store(str(root))
    found = {}
    for path in sorted(root.glob("*/*/manifest.json")):
        manifest = store.manifest(path.parts[-3], path.parts[-2])
        assert manifest is not None
        if manifest.stage != "publish":
            found[f"{manifest.stage}/{manifest.fingerprint}"] = manifest.content_hash()
    return found


@pytest.fixture(scope="module")
def finished(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("store")
    return root, cli.json("run", "smoke", "--root", str(root))


def test_a_fresh_run_runs_every_stage(finished: tuple[Path, dict[str, Any]]) -> None:
    _, summary = finished
    assert outcomes(summary) == dict.fromkeys(LABELS, "ran")
    assert summary["state"] == "completed"
    assert summary["stages"]["load"]["rows"] == 24
    assert summary["stages"]["generate"]["rows"] == 64
    assert Path(summary["report"]).read_text().startswith("<!doctype html>")


def test_tables_have_the_documented_schemas(finished: tuple[Path, dict[str, Any]]) -> None:
    root, _ = finished
    stages = {"load": "prompts", "generate": "responses", "verify": "rewards", "weigh": "weights"}
    for stage, table in {**stages, "evaluate": "scores"}.items():
        parts = list((root / stage).glob("*/*.parquet"))
        assert parts, stage
        for part in parts:
            assert pq.read_schema(part).equals(SCHEMAS[table]), part


def test_student_loads_with_transformers(finished: tuple[Path, dict[str, Any]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, summary = finished
    folder = summary["stages"]["train"]["uri"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size >= len(tokenizer)


def test_a_second_run_loads_no_model(cli: Cli, finished: tuple[Path, dict[str, Any]]) -> None:
    root, _ = finished
    script = (
        "import sys, json\n"
        "from flows import catalog\n"
        "from flows.launch import run_here\n"
        "import tasks.perform\n"
        "def refuse(*a, **k): raise AssertionError('a stage was started')\n"
        "tasks.perform.run_in_child = tasks.perform.run_stage = refuse\n"
        "summary = run_here(catalog.load('smoke', [], sys.argv[1]))\n"
        "loaded = [m for m in ('torch', 'transformers', 'reasoning_gym') if m in sys.modules]\n"
        "print(json.dumps([summary, loaded]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, env=cli.environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary, loaded = json.loads(done.stdout.strip().splitlines()[-1])
    assert outcomes(summary) == dict.fromkeys(LABELS, "cached")
    assert loaded == []


def test_only_what_reads_a_changed_field_runs_again(cli: Cli, finished: tuple[Path, dict[str, Any]]) -> None:
    root, _ = finished
    summary = cli.json("run", "smoke", "--root", str(root), "--set", "student.learning_rate=0.002")
    assert outcomes(summary) == {
        **dict.fromkeys(LABELS[:7], "cached"),
        **dict.fromkeys(LABELS[7:], "ran"),
    }


def test_equal_weights_train_nothing_again(cli: Cli, finished: tuple[Path, dict[str, Any]]) -> None:
    """Every group of the tiny model is all wrong and so uniform, whatever tau is; the report
    shows the setting and is written anew."""
    root, _ = finished
    summary = cli.json("run", "smoke", "--root", str(root), "--set", "weighting.tau=2")
    assert outcomes(summary) == {**dict.fromkeys(LABELS, "cached"), "weigh": "ran", "publish": "ran"}


def test_a_deleted_part_reruns_its_stage_alone(cli: Cli, finished: tuple[Path, dict[str, Any]]) -> None:
    root, _ = finished
    before = content_hashes(root)
    part = next((root / "generate").glob("*/*.parquet"))
    part.unlink()
    summary = cli.json("run", "smoke", "--root", str(root))
    assert outcomes(summary) == {**dict.fromkeys(LABELS, "cached"), "generate": "ran"}
    assert content_hashes(root) == before


def test_a_silent_flip_is_found_when_asked(cli: Cli, finished: tuple[Path, dict[str, Any]]) -> None:
    """Same size and time: only `storage.deep_verify` compares checksums."""
    root, _ = finished
    before = content_hashes(root)
    part = next((root / "verify").glob("*/*.parquet"))
    stat, data = part.stat(), bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    summary = cli.json("run", "smoke", "--root", str(root), "--set", "storage.deep_verify=true")
    assert outcomes(summary) == {**dict.fromkeys(LABELS, "cached"), "verify": "ran"}
    assert content_hashes(root) == before


def test_dry_run_status_and_report(cli: Cli, finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, summary = finished
    plan = cli.json("run", "smoke", "--root", str(root), "--dry-run")
    assert plan["stages"] == dict.fromkeys(LABELS, "cached")
    fresh = cli.json("run", "smoke", "--root", str(tmp_path / "new"), "--dry-run")
    assert fresh["stages"] == dict.fromkeys(LABELS, "would run")
    done = cli("status", "--root", str(root), "--json")
    assert summary["run_id"] in {run["run_id"] for run in json.loads(done.stdout)["runs"]}
    done = cli("report", summary["run_id"], "--root", str(root))
    assert done.stdout.strip() == summary["report"]


SMALL_SHARDS = ["--set", "teacher.shard_size=2", "--set", "prompts.num_train=48", "--set", "student.epochs=2"]
SMALL_SHARDS += ["--set", "student.checkpoint_every_steps=2"]


@pytest.fixture(scope="module")
def uninterrupted(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("whole")
    cli.json("run", "smoke", "--root", str(root), *SMALL_SHARDS)
    return content_hashes(root)


@pytest.mark.parametrize("stage", ["generate", "train"])
def test_sigkill_then_the_same_command(
    cli: Cli, tmp_path: Path, uninterrupted: dict[str, str], stage: str
) -> None:
    """The killed run's children die with it; the next one continues and ends the same."""
    arguments = ["run", "smoke", "--root", str(tmp_path), *SMALL_SHARDS]
    process = cli.start(*arguments)
    pattern = "generate/*/work/*.parquet" if stage == "generate" else "train/*/work/checkpoints/checkpoint-*"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and len(list(tmp_path.glob(pattern))) < 2 and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    kill(process)
    kept = len(list(tmp_path.glob(pattern)))
    assert kept >= 1
    assert not list(tmp_path.glob(f"{stage}/*/manifest.json"))
    summary = cli.json(*arguments)
    assert summary["stages"][stage]["outcome"] == "resumed"
    assert summary["stages"]["load"]["outcome"] == "cached"
    assert content_hashes(tmp_path) == uninterrupted
