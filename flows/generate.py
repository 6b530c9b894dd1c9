"""The flow `generate`: from questions to the teacher's responses."""

from typing import Any

from prefect import flow

from advdistill_core.config import DistillConfig
from flows.cancelled import note_cancelled
from flows.precheck import precheck
from flows.recorder import FromStage, RunRecorder
from flows.run_name import named
from tasks.generate import generate
from tasks.load import load


@flow(name="generate", flow_run_name=named("{config.name}"), on_cancellation=[note_cancelled])
def generate_flow(config: DistillConfig, from_stage: FromStage = "first missing") -> dict[str, Any]:
    """Load the questions and let the teacher answer them.

    Args:
        config: as for `distill`; what follows the generation is not read.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    precheck(config)
    run = RunRecorder(config, from_stage)
    run.step(generate, run.step(load))
    return run.finish()
