"""The flow `distill`: from questions to a measured student."""

import json
from typing import Any

from prefect import flow

from advdistill_core.config import DistillConfig
from advdistill_core.store import Store
from flows.precheck import precheck
from flows.recorder import FromStage, RunRecorder
from tasks.evaluate import evaluate
from tasks.generate import generate
from tasks.load import load
from tasks.publish import publish
from tasks.train import rewards_for, train
from tasks.verify import verify
from tasks.weigh import weigh


@flow(name="distill", flow_run_name="{config.name}")
def distill(config: DistillConfig, from_stage: FromStage = "first missing") -> dict[str, Any]:
    """Distil a teacher's weighted responses into a student and measure what it gained.

    Args:
        config: everything the run needs; each stage reads only its own part.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    precheck(config)
    run = RunRecorder(config, from_stage)
    prompts = run.step(load)
    before = run.step(evaluate, prompts, model="student_before", label="evaluate before")
    responses = run.step(generate, prompts)
    rewards = run.step(verify, prompts, responses)
    weights = run.step(weigh, responses, rewards)
    student = run.step(train, prompts, responses, weights, rewards_for(config, rewards))
    after = run.step(evaluate, prompts, student, model="student_after", label="evaluate after")
    report = run.step(publish, prompts, responses, rewards, weights, student, before, after)
    metrics = json.loads(Store(config.storage.root).open(report).file("metrics.json"))
    return run.finish(report, metrics)
