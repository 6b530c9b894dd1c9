"""The stage `train`: prompts, responses and weights in, a model folder out."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from advdistill_core import models
from advdistill_core.config import DistillConfig, StudentConfig
from advdistill_core.models.home import no_bars
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter, tables
from advdistill_core.training.rows import Group

_LOG = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),
        ("completion_tokens", pa.int64()),
    ]
)


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The student's weights count, not what they are called."""
    section = config.student.identity()
    section["model"] = models.identity(config.student.model)
    return {"student": section}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Train the student and write it as a folder that `from_pretrained` loads.

    Without any weight there is nothing to learn (a teacher that is never right, say): the
    student is written as it was, and the metrics say why.
    """
    from advdistill_core.training.data import read_groups, read_weights, why_nothing

    student = config.student
    tokenizer = models.load_tokenizer(student.model, student.trust_remote_code)
    wanted = read_weights(inputs["weights"])
    if not wanted:
        why = why_nothing(inputs["weights"].manifest.metrics)
        progress(Event(stage="train", done=0, total=0, unit="steps", message=why))
        _write_unchanged(student, tokenizer, out)
        out.note(tokens={"completion": 0}, metrics={"num_steps": 0, "nothing_to_train": why})
        return
    data = read_groups(inputs["prompts"], inputs["responses"], wanted, tokenizer, student)
    progress(Event(stage="train", done=0, total=0, unit="steps", message="loading the student"))
    log, paths = _train(data.groups, student, out, progress)
    _write_model(tokenizer, out)
    _write_log(log, out)
    tokens = sum(int(entry["completion_tokens"]) for entry in log)
    out.note(
        tokens={"completion": tokens},
        metrics={
            "num_steps": len(log),
            "num_groups": len(data.groups),
            "num_responses": data.num_rows,
            "too_long": len(data.too_long),
            "empty": len(data.empty),
            "loss_first": log[0]["loss"],
            "loss_last": log[-1]["loss"],
            **paths,
        },
    )


def _train(
    groups: list[Group], student: StudentConfig, out: ArtifactWriter, progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Train here or in several processes; the model is in the work folder `job` afterwards.

    Returns:
        The log, and which fast paths the model allowed.
    """
    from advdistill_core.training.fit import fit
    from advdistill_core.training.launch import fit_in_processes
    from advdistill_core.training.student import load_student, save_student

    job = out.work_folder("job")
    if student.num_processes > 1:
        result = fit_in_processes(groups, student, job, progress)
        log, shared, fused = result["log"], result["shared"], result["fused"]
    else:
        fitted = fit(load_student(student), groups, student, out.work_folder("checkpoints"), progress)
        shutil.rmtree(job / "model", ignore_errors=True)  # of an attempt that was cut short here
        save_student(fitted.model, job / "model")
        log, shared, fused = fitted.log, fitted.shared, fitted.fused
    return log, {"prefix_shared": shared, "output_layer_fused": fused}


def _write_unchanged(student: StudentConfig, tokenizer: Any, out: ArtifactWriter) -> None:
    from advdistill_core.training.student import load_student, save_student

    save_student(load_student(student), out.work_folder("job") / "model")
    _write_model(tokenizer, out)
    _write_log([], out)


def _write_log(log: list[dict[str, Any]], out: ArtifactWriter) -> None:
    out.write_file("train_log.parquet", tables.encode(pa.Table.from_pylist(log, schema=_LOG)))


def _write_model(tokenizer: Any, out: ArtifactWriter) -> None:
    """Weights, configuration, tokenizer and chat template, at the artifact's root."""
    folder: Path = out.work_folder("job") / "model"
    with no_bars():
        tokenizer.save_pretrained(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        out.put_file(str(path.relative_to(folder)), path)
