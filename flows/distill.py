"""The flow `distill`: from questions to a measured student."""

import json
from typing import Any

from prefect import flow

from advdistill_core.config import DistillConfig
from advdistill_core.store import Store
from flows.cancelled import note_cancelled
from flows.precheck import precheck
from flows.questions import load_questions, measure_likelihood, measure_standard
from flows.recorder import FromStage, RunRecorder
from flows.run_name import named
from flows.run_record import BEFORE, TEACHER
from tasks.generate import generate
from tasks.publish import publish
from tasks.push import push
from tasks.train import rewards_for, train
from tasks.verify import verify
from tasks.weigh import weigh


@flow(name="distill", flow_run_name=named("{config.name}"), on_cancellation=[note_cancelled])
def distill(config: DistillConfig, from_stage: FromStage = "first missing") -> dict[str, Any]:
    """Distil a teacher's weighted responses into a student and measure what it gained.

    Args:
        config: everything the run needs; each stage reads only its own part.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    precheck(config)
    run = RunRecorder(config, from_stage)
    asked = load_questions(run)
    scores = {f"before/{on}": ref for on, ref in asked.measure(run, "student_before", label=BEFORE).items()}
    standard = measure_standard(run, "student_before", None, BEFORE)
    if config.evaluation.teacher:
        scores |= {f"teacher/{on}": ref for on, ref in asked.measure(run, "teacher", label=TEACHER).items()}
    generated = run.step(generate, asked.prompts)
    responses = asked.gate(run, generated)
    rewards = run.step(verify, asked.prompts, responses)
    weights = run.step(weigh, responses, rewards)
    student = run.step(train, asked.prompts, responses, weights, rewards_for(config, rewards))
    found = asked.measure(run, "student_after", student, label="evaluate after")
    scores |= {f"after/{on}": ref for on, ref in found.items()}
    likely = measure_likelihood(run, (asked.prompts, responses, rewards), "student_before")
    likely |= measure_likelihood(run, (asked.prompts, responses, rewards), "student_after", student)
    standard |= measure_standard(run, "student_after", student, "evaluate after")
    report = run.step(
        publish,
        asked.prompts,
        responses,
        rewards,
        weights,
        student,
        scores.pop("before/heldout"),
        scores.pop("after/heldout"),
        loaded=asked.loaded,
        generated=generated,
        scores=scores,
        standard=standard,
        likelihoods=likely,
    )
    if config.storage.hub_dataset or config.storage.hub_model:
        run.step(push, report, asked.prompts, responses, rewards, weights, student)
    metrics = json.loads(Store(config.storage.root).open(report).file("metrics.json"))
    return run.finish(report, metrics)
