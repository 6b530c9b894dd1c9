"""The layers are enforced, not promised."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_imports_run_one_way() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_layer_check_can_fail(tmp_path: Path) -> None:
    """A store that imports training, in a copy of the tree, is reported."""
    import shutil

    for name in ("advdistill_core", "tasks", "flows", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    broken = tmp_path / "advdistill_core" / "store" / "files.py"
    broken.write_text(broken.read_text() + "\nimport advdistill_core.training  # noqa\n")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )
    assert done.returncode != 0
    assert "advdistill_core.store.files -> advdistill_core.training" in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "advdistill_core.stages",
        "advdistill_core.config.loading",
        "flows.cli",
        "advdistill_core.prompts.stage",
        "advdistill_core.teachers.stage",
        "advdistill_core.rewards.stage",
        "advdistill_core.weighting.stage",
        "advdistill_core.training.stage",
        "advdistill_core.evaluation.stage",
        "advdistill_core.report.stage",
    ],
)
def test_planning_imports_no_heavy_library(module: str) -> None:
    heavy = ("torch", "transformers", "datasets", "reasoning_gym", "math_verify", "prefect")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_top_level_is_fixed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {name.split("/")[0] for name in listed.split() if not name.startswith(".")}
    allowed = {
        "flows",
        "tasks",
        "advdistill_core",
        "infra",
        "tests",
        "pyproject.toml",
        "README.md",
        "Makefile",
    }
    assert top <= allowed
