"""The flow `train`: from questions to a student, without measuring it."""

from typing import Any

from prefect import flow

from advdistill_core.config import DistillConfig
from advdistill_core.store import ArtifactRef
from flows.cancelled import note_cancelled
from flows.precheck import precheck
from flows.questions import Questions, load_questions
from flows.recorder import FromStage, RunRecorder
from flows.run_name import named
from tasks.generate import generate
from tasks.train import rewards_for, train
from tasks.verify import verify
from tasks.weigh import weigh


@flow(name="train", flow_run_name=named("{config.name}"), on_cancellation=[note_cancelled])
def train_flow(config: DistillConfig, from_stage: FromStage = "first missing") -> dict[str, Any]:
    """Train a student; the stages before it are done where their results are missing.

    Args:
        config: as for `distill`.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    precheck(config)
    run = RunRecorder(config, from_stage)
    make_student(run, load_questions(run))
    return run.finish()


def make_student(run: RunRecorder, asked: Questions, config: DistillConfig | None = None) -> ArtifactRef:
    """Train a student on the training questions."""
    prompts = asked.prompts
    responses = asked.gate(run, run.step(generate, prompts, config=config), config)
    rewards = run.step(verify, prompts, responses, config=config)
    weights = run.step(weigh, responses, rewards, config=config)
    graded = rewards_for(config or run.config, rewards)
    return run.step(train, prompts, responses, weights, graded, config=config)
