"""The stage `harness`: standard tasks by EleutherAI's lm-evaluation-harness, if it is installed.

Its scores stand beside ours, which come from our own questions, sampling and verifiers. It is
told to use the model's chat template, no cache and fixed seeds; its error is its own.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from advdistill_core import models
from advdistill_core.config import DistillConfig, HarnessConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.evaluation.stage import TRAINED
from advdistill_core.models.sources import resolve
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter

_INSTALL = "Install advdistill[lm-eval]."


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Scores depend on the model, the harness's version, and tasks of one's own by their content.

    Raises:
        InputError: the harness is not installed, or the folder of tasks does not exist.
    """
    chosen = config.evaluation.harness
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError("evaluation.harness.tasks", chosen.tasks, "lm-evaluation-harness", _INSTALL)
    found = {
        "harness": {**chosen.identity(), "include_path": _content(chosen), "version": version("lm_eval")}
    }
    if params["model"] not in TRAINED:
        found["model_identity"] = {"model": models.identity(config.student.model)}
    return found


def _content(chosen: HarnessConfig) -> str:
    """A hash of the files of one's own tasks."""
    if not chosen.include_path:
        return ""
    folder = Path(chosen.include_path).expanduser()
    if not folder.is_dir():
        raise InputError("evaluation.harness.include_path", str(folder), "a folder with task files")
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Run the configured tasks and write `harness.json`.

    Args:
        params: `model` is `student_before`, or `student_after` with the input `student`.

    Raises:
        InputError: a task is unknown or cannot be loaded.
    """
    chosen = config.evaluation.harness
    progress(Event(stage="harness", done=0, total=0, unit="tasks", message=", ".join(chosen.tasks)))
    if params["model"] in TRAINED:
        if "student" not in inputs:
            raise StageError(f"stage harness: got no {params['model']}, expected one. Train it first.")
        folder = str(inputs["student"].local_path())
    else:
        folder = resolve(config.student.model).location
    results = evaluate(folder, chosen, config)
    out.write_file("harness.json", json.dumps(results, indent=1, default=str).encode())
    out.note(metrics={"tasks": figures(results)})
    progress(Event(stage="harness", done=len(chosen.tasks), total=len(chosen.tasks), unit="tasks"))


def evaluate(folder: str, chosen: HarnessConfig, config: DistillConfig) -> dict[str, Any]:
    """What the harness says of a model's folder: its `results`, `versions` and `n-samples`."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=chosen.include_path or None)
    missing = [name for name in chosen.tasks if not manager.match_tasks([name])]
    if missing:
        raise InputError(
            "evaluation.harness.tasks",
            missing,
            "tasks that lm-evaluation-harness knows",
            "See `lm-eval ls tasks`.",
        )
    dtype = config.evaluation.dtype
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": folder, "dtype": "float32" if dtype == "auto" else dtype},
        tasks=list(chosen.tasks),
        num_fewshot=chosen.num_fewshot if chosen.num_fewshot >= 0 else None,
        limit=chosen.limit or None,
        batch_size=config.evaluation.batch_size,
        device=None if config.evaluation.device == "auto" else config.evaluation.device,
        apply_chat_template=chosen.chat_template,
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=False,
    )
    if found is None:  # only in its other processes
        raise StageError("stage harness: got no result, expected one from lm-evaluation-harness.")
    return {name: found.get(name) for name in ("results", "versions", "n-shot", "n-samples")}


def figures(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per task and metric: value and standard error, null where the harness has none."""
    rows = []
    for task, found in (results.get("results") or {}).items():
        for key, value in found.items():
            name, _, filtered = key.partition(",")
            if (
                not isinstance(value, int | float)
                or name.endswith("_stderr")
                or name in ("alias", "sample_len")
            ):
                continue
            error = found.get(f"{name}_stderr,{filtered}")
            rows.append(
                {
                    "task": task,
                    "metric": name if filtered in ("none", "") else f"{name} ({filtered})",
                    "value": float(value),
                    "se": float(error) if isinstance(error, int | float) else None,
                }
            )
    return rows
