"""lm-evaluation-harness as a runner: with the real one where it is installed, wiring without it."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.evaluation import harness
from advdistill_core.stages import HARNESS, plan_stage, run_stage
from advdistill_core.store import Store

TASK = """\
task: tiny_sums
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
RESULTS = {
    "results": {
        "tiny_sums": {"alias": "tiny_sums", "acc,none": 0.25, "acc_stderr,none": 0.125, "sample_len": 4},
        "gsm": {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": "N/A"},
    }
}


def tasks(folder: Path) -> Path:
    data = folder / "rows.jsonl"
    rows = [{"question": f"{i}+{i}=", "choices": [str(2 * i), str(2 * i + 1)], "label": 0} for i in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks").mkdir()
    (folder / "tasks" / "tiny_sums.yaml").write_text(TASK.format(data=data))
    return folder / "tasks"


def config(folder: Path, **changes: Any) -> DistillConfig:
    chosen = {"tasks": ["tiny_sums"], "include_path": str(tasks(folder)), **changes}
    return DistillConfig.model_validate(
        {
            "student": {"model": "tiny-random-llama", "device": "cpu"},
            "evaluation": {"harness": chosen, "batch_size": 4, "device": "cpu"},
        }
    )


def test_rows_of_values_with_their_errors() -> None:
    assert harness.figures(RESULTS) == [
        {"task": "tiny_sums", "metric": "acc", "value": 0.25, "se": 0.125},
        {"task": "gsm", "metric": "exact_match (strict-match)", "value": 0.5, "se": None},
    ]


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Install advdistill\[lm-eval\]"):
        harness.identity(config(tmp_path), {"model": "student_before"})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The harness's interface, recording what it is asked for."""
    asked: dict[str, Any] = {}

    class TaskManager:
        def __init__(self, include_path: str | None = None) -> None:
            asked["include_path"] = include_path

        def match_tasks(self, names: list[str]) -> list[str]:
            return [name for name in names if name != "unknown"]

    def simple_evaluate(**given: Any) -> dict[str, Any]:
        asked.update(given)
        return RESULTS

    package, module = ModuleType("lm_eval"), ModuleType("lm_eval.tasks")
    package.__dict__.update(simple_evaluate=simple_evaluate, __spec__=SimpleNamespace())
    module.__dict__.update(TaskManager=TaskManager)
    monkeypatch.setitem(sys.modules, "lm_eval", package)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", module)
    monkeypatch.setattr(harness, "version", lambda name: "0.4.9")
    return asked


def test_the_stage_asks_for_what_is_configured(tmp_path: Path, fake: dict[str, Any]) -> None:
    store, chosen = Store(str(tmp_path / "store")), config(tmp_path, limit=3, num_fewshot=0)
    ref = run_stage(HARNESS, chosen, {}, store, {"model": "student_before"})
    assert store.open(ref).manifest.metrics["tasks"] == harness.figures(RESULTS)
    assert (fake["tasks"], fake["limit"], fake["num_fewshot"]) == (["tiny_sums"], 3, 0)
    assert fake["apply_chat_template"] is True
    assert Path(fake["model_args"]["pretrained"], "config.json").is_file()


def test_an_unknown_task_is_refused(tmp_path: Path, fake: dict[str, Any]) -> None:
    store, chosen = Store(str(tmp_path / "store")), config(tmp_path, tasks=["unknown"])
    with pytest.raises(InputError, match="tasks that lm-evaluation-harness knows"):
        run_stage(HARNESS, chosen, {}, store, {"model": "student_before"})


def test_tasks_of_ones_own_count_by_their_content(tmp_path: Path, fake: dict[str, Any]) -> None:
    store, chosen = Store(str(tmp_path / "store")), config(tmp_path)
    params = {"model": "student_before"}
    before = plan_stage(HARNESS, chosen, {}, store, params).fingerprint
    assert plan_stage(HARNESS, chosen, {}, store, params).fingerprint == before
    path = tmp_path / "tasks" / "tiny_sums.yaml"
    path.write_text(path.read_text() + "# changed\n")
    assert plan_stage(HARNESS, chosen, {}, store, params).fingerprint != before


def test_the_real_harness_runs_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an optional extra")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    store = Store(str(tmp_path / "store"))
    ref = run_stage(HARNESS, config(tmp_path), {}, store, {"model": "student_before"})
    (row,) = store.open(ref).manifest.metrics["tasks"]
    assert (row["task"], row["metric"]) == ("tiny_sums", "acc")
    assert row["value"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert json.loads(store.open(ref).file("harness.json"))["n-samples"]["tiny_sums"]["effective"] == 4
