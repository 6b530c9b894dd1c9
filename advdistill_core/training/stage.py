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
from advdistill_core.rewards import stage as verify
from advdistill_core.store import Artifact, ArtifactWriter, tables

_LOG = pa.schema(
    [
        ("step", pa.int64()),
        ("stage", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),
        ("completion_tokens", pa.int64()),
        ("heldout_accuracy", pa.float64()),
        ("heldout_loss", pa.float64()),
        ("chosen_log_prob", pa.float64()),
    ]
)


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The student's weights count, not what they are called."""
    section = config.student.identity()
    section["model"] = models.identity(config.student.model)
    early = config.student.early_stopping
    if not early.every_steps or early.metric != "accuracy":
        return {"student": section}
    rewards = config.rewards.identity()
    grading = {name: rewards[name] for name in ("policy", "timeout_s", "memory_bytes")}
    return {"student": section, "grading": grading | verify.identity(config, params)}


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
    from advdistill_core.training.data import read_weights, why_nothing

    student = config.student
    second = student.negatives.kind != "off"
    tokenizer = models.load_tokenizer(student.model, student.trust_remote_code)
    wanted = read_weights(inputs["weights"], second)
    if not wanted:
        why = why_nothing(inputs["weights"].manifest.metrics)
        progress(Event(stage="train", done=0, total=0, unit="steps", message=why))
        _write_unchanged(student, tokenizer, out)
        out.note(tokens={"completion": 0}, metrics={"num_steps": 0, "nothing_to_train": why})
        return
    job, data = _read(config, inputs, wanted, tokenizer)
    progress(Event(stage="train", done=0, total=0, unit="steps", message="loading the student"))
    log, notes = _train(job, student, tokenizer, out, progress)
    _write_model(tokenizer, out)
    _write_log(log, out)
    if second and not job.paired:
        notes["negatives"] = {"kind": student.negatives.kind, "num_groups": 0, "num_steps": 0}
    if job.heldout:
        notes["early_stopping"]["num_kept_back"] = len(job.heldout.questions)
    _tell(notes, progress)
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
            **notes,
        },
    )


def _read(
    config: DistillConfig, inputs: Mapping[str, Artifact], wanted: Mapping[Any, float], tokenizer: Any
) -> tuple[Any, Any]:
    """What is trained on (`run.Job`), and the counts of what was left out (`data.TrainingData`)."""
    from advdistill_core.training.data import read_groups
    from advdistill_core.training.heldout import kept_back
    from advdistill_core.training.more_data import read_heldout, read_paired
    from advdistill_core.training.run import Job
    from advdistill_core.training.student import longest_row

    student, prompts = config.student, inputs["prompts"]
    fitting = student.model_copy(update={"max_seq_tokens": longest_row(student)})
    ids = [name for table in prompts.tables("train") for name in table.column("prompt_id").to_pylist()]
    back = kept_back(ids, student)
    data = read_groups(prompts, inputs["responses"], wanted, tokenizer, fitting, back)
    second = student.negatives.kind != "off"
    paired = read_paired(inputs, tokenizer, fitting, back) if second else []
    return Job(data.groups, paired, read_heldout(prompts, tokenizer, config, back, data.heldout)), data


def _train(
    job: Any, student: StudentConfig, tokenizer: Any, out: ArtifactWriter, progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train here or in several processes; the model is in the work folder `job` afterwards.

    Returns:
        The log, and what to record: which fast paths the model allowed, why it stopped.
    """
    from advdistill_core.training.launch import fit_in_processes
    from advdistill_core.training.run import train
    from advdistill_core.training.student import load_student, save_student

    folder = out.work_folder("job")
    if student.num_processes > 1:
        result = fit_in_processes(job, student, folder, progress)
        log, shared, fused, notes = (result[name] for name in ("log", "shared", "fused", "notes"))
    else:
        checkpoints = out.work_folder("checkpoints")
        fitted = train(load_student(student), job, student, checkpoints, progress, tokenizer)
        shutil.rmtree(folder / "model", ignore_errors=True)  # of an attempt that was cut short here
        save_student(fitted.model, folder / "model")
        log, shared, fused, notes = fitted.log, fitted.shared, fitted.fused, fitted.notes
    return log, {"prefix_shared": shared, "output_layer_fused": fused, **notes}


def _tell(notes: Mapping[str, Any], progress: Progress) -> None:
    """Say where a training ended early."""
    said = []
    if (stopped := notes.get("early_stopping", {}).get("stopped_at")) is not None:
        said.append(f"stopped after step {stopped}: nothing better came")
    negatives = notes.get("negatives", {})
    if (stopped := negatives.get("guard_stopped_at")) is not None:
        said.append(
            f"the second stage was stopped at step {stopped}, since right responses lost more than the guard "
            f"allows; the student is that of step {negatives['kept_step']}"
        )
    if negatives and not negatives["num_groups"]:
        said.append("there was no wrong response beside a right one for the second stage")
    for message in said:
        progress(Event(stage="train", done=0, total=0, unit="steps", message=message))


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
