"""The stage `train`: prompts, responses and weights in, a model folder out."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.models.home import no_bars
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter, tables

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
    """Train the student and write it as a folder that `from_pretrained` loads."""
    from advdistill_core.training.data import read_groups
    from advdistill_core.training.fit import fit

    student = config.student
    tokenizer = models.load_tokenizer(student.model, student.trust_remote_code)
    data = read_groups(inputs["prompts"], inputs["responses"], inputs["weights"], tokenizer, student)
    progress(Event(stage="train", done=0, total=0, unit="steps", message="loading the student"))
    model = models.load_model(student.model, "float32", student.device, student.trust_remote_code)
    fitted = fit(model, data.groups, student, out.work_folder("checkpoints"), progress)
    _write_model(fitted.model, tokenizer, out)
    out.write_file("train_log.parquet", tables.encode(pa.Table.from_pylist(fitted.log, schema=_LOG)))
    tokens = sum(int(entry["completion_tokens"]) for entry in fitted.log)
    out.note(
        tokens={"completion": tokens},
        metrics={
            "num_steps": len(fitted.log),
            "num_groups": len(data.groups),
            "num_responses": data.num_rows,
            "too_long": len(data.too_long),
            "empty": len(data.empty),
            "loss_first": fitted.log[0]["loss"],
            "loss_last": fitted.log[-1]["loss"],
            "prefix_shared": fitted.shared,
            "output_layer_fused": fitted.fused,
        },
    )


def _write_model(model: Any, tokenizer: Any, out: ArtifactWriter) -> None:
    """Weights, configuration, tokenizer and chat template, at the artifact's root."""
    folder: Path = out.work_folder("model")
    shutil.rmtree(folder)  # of an attempt that was cut short here
    folder.mkdir()
    with no_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        out.put_file(str(path.relative_to(folder)), path)
