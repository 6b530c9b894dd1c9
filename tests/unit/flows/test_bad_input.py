"""Bad input: one line, exit code 2, nothing loaded, nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def advdistill(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    code = (
        "import sys\n"
        "from flows.cli import app, guarded\n"
        "status = guarded(app)\n"
        "heavy = [m for m in ('torch', 'transformers', 'prefect') if m in sys.modules]\n"
        "print('HEAVY', heavy)\n"
        "sys.exit(status)\n"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)


def rows(path: Path, *documents: object) -> str:
    path.write_text("".join(json.dumps(d) + "\n" for d in documents))
    return str(path)


def refused(tmp_path: Path, *arguments: str) -> str:
    """Run, check that it was refused as it should be, and return the line."""
    done = advdistill(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "HEAVY []" in done.stdout
    assert not list(tmp_path.glob("store/*/*/manifest.json"))
    return lines[0]


SMOKE = ["run", "smoke", "--root", "store", "--set"]
GSM8K = ["run", "gsm8k-smollm2", "--root", "store", "--set"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quickstar"], ["quickstar", "Did you mean quickstart?"]),
        (["run", "no/such.yaml"], ["no/such.yaml"]),
        (["run", "smoke", "--set", "teacher.kk=3"], ["teacher.kk", "Did you mean k?"]),
        (["run", "smoke", "--set", "teacher.k=-3"], ["teacher.k", "-3", "greater than or equal to 1"]),
        (["run", "smoke", "--set", "nonsense"], ["section.field=value"]),
        (["run", "gsm8k-smollm2"], ["path is missing"]),
        ([*GSM8K, "prompts.path=missing.jsonl"], ["missing.jsonl"]),
        (
            ["run", "smoke", "--root", "store", "--set", "student.model=nowhere/here/at-all"],
            ["student.model"],
        ),
        (["run", "smoke", "--root", "store", "--set", "prompts.task=mth"], ["prompts.task", "mean math?"]),
        (["run", "smoke", "--root", "store", "--set", "weighting.scheme=linear"], ["weighting.scheme"]),
        (["report", "nothing", "--root", "store"], ["--root", "store"]),
        (["report", "nothing"], ["nothing", "status"]),
        (["run", "smoke", "--root", "store", "--set", "prompts.num_train=200"], ["distinct", "num_train"]),
    ],
)
def test_refused(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    line = refused(tmp_path, *arguments)
    for word in words:
        assert word in line


def test_prompt_files(tmp_path: Path) -> None:
    good = {"question": "1+1?", "answer": "2"}
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl" in refused(tmp_path, *GSM8K, "prompts.path=empty.jsonl")

    rows(tmp_path / "column.jsonl", {"q": "1+1?", "answer": "2"})
    line = refused(tmp_path, *GSM8K, "prompts.path=column.jsonl")
    assert "question" in line
    assert "column.jsonl" in line

    rows(tmp_path / "row.jsonl", good, {"question": "2+2?", "answer": None}, good)
    line = refused(tmp_path, *GSM8K, "prompts.path=row.jsonl")
    assert "row.jsonl" in line
    assert "2" in line

    (tmp_path / "torn.jsonl").write_text(json.dumps(good) + '\n{"question": "2+')
    line = refused(tmp_path, *GSM8K, "prompts.path=torn.jsonl")
    assert "torn.jsonl" in line


def test_model_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    line = refused(
        tmp_path, "run", "smoke", "--root", "store", "--set", f"teacher.model={tmp_path / 'model'}"
    )
    assert "safetensors" in line


def test_no_disk_space(tmp_path: Path) -> None:
    line = refused(tmp_path, "run", "smoke", "--root", "store", "--set", "prompts.num_train=1000000000")
    assert "GB free" in line


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["recipes", "--json"], ["run", "--help"]])
def test_light_commands_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    done = advdistill(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "HEAVY []" in done.stdout
