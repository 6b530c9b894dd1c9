"""The flow `evaluate`: one model's answers to the held-out questions."""

from typing import Any, Literal

from prefect import flow

from advdistill_core.config import DistillConfig
from advdistill_core.store import Store
from flows.precheck import precheck
from flows.recorder import FromStage, RunRecorder
from flows.train import make_student
from tasks.evaluate import evaluate
from tasks.load import load


@flow(name="evaluate", flow_run_name="{config.name}-{model}")
def evaluate_flow(
    config: DistillConfig,
    model: Literal["student_before", "student_after", "teacher"] = "student_before",
    from_stage: FromStage = "first missing",
) -> dict[str, Any]:
    """Measure a model on the held-out questions.

    Args:
        config: as for `distill`.
        model: the untrained student, the trained one (trained first where it is missing),
            or the teacher.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    precheck(config)
    run = RunRecorder(config, from_stage)
    prompts = run.step(load)
    student = make_student(run, prompts) if model == "student_after" else None
    scores = run.step(evaluate, prompts, student, model=model)
    manifest = Store(config.storage.root).open(scores).manifest
    return run.finish(metrics=manifest.metrics)
