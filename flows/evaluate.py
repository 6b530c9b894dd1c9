"""The flow `evaluate`: one model's answers to every evaluation set."""

from typing import Any, Literal

from prefect import flow

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.store import ArtifactRef, Store
from flows import promotion
from flows.cancelled import note_cancelled
from flows.precheck import precheck
from flows.questions import load_questions
from flows.recorder import FromStage, RunRecorder
from flows.run_name import named
from flows.train import make_student


@flow(name="evaluate", flow_run_name=named("{config.name}-{model}"), on_cancellation=[note_cancelled])
def evaluate_flow(
    config: DistillConfig,
    model: Literal["student_before", "student_after", "champion", "teacher"] = "student_before",
    champion: str = "default",
    from_stage: FromStage = "first missing",
) -> dict[str, Any]:
    """Measure a model on the held-out questions and every further set.

    Args:
        config: as for `distill`.
        model: the untrained student, the trained one (trained first where it is missing),
            the promoted one, or the teacher.
        champion: of which line of students the promoted one is taken.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    precheck(config)
    run = RunRecorder(config, from_stage)
    asked = load_questions(run)
    student = make_student(run, asked) if model == "student_after" else None
    if model == "champion":
        student = _champion(run.store, champion)
    found = asked.measure(run, model, student)
    metrics = {place: run.store.open(scores).manifest.metrics for place, scores in found.items()}
    others = {place: figures for place, figures in metrics.items() if place != "heldout"}
    return run.finish(metrics={**metrics["heldout"], **others})


def _champion(store: Store, name: str) -> ArtifactRef:
    line = promotion.lines(store).get(name)
    if line is None or line.champion is None:
        raise InputError("champion", name, "a line with a promoted student", "See `advdistill champions`.")
    return line.champion.student
