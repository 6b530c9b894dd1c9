"""Tasks: training texts without, or in spite of, what repeats evaluation questions."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import GATE_PROMPTS, GATE_RESPONSES
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(GATE_PROMPTS))
def gate_prompts(config: DistillConfig, prompts: ArtifactRef, sets: dict[str, ArtifactRef]) -> ArtifactRef:
    """Pass the prompts on, as `evaluation.contamination` says."""
    return perform(GATE_PROMPTS, config, prompts=prompts, sets=sets)


@task(**cached(GATE_RESPONSES))
def gate_responses(
    config: DistillConfig, prompts: ArtifactRef, responses: ArtifactRef, sets: dict[str, ArtifactRef]
) -> ArtifactRef:
    """Pass the responses on, as `evaluation.contamination` says."""
    return perform(GATE_RESPONSES, config, prompts=prompts, responses=responses, sets=sets)
