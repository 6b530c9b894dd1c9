"""Task: the student, trained on the weighted responses."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import TRAIN
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(TRAIN))
def train(
    config: DistillConfig, prompts: ArtifactRef, responses: ArtifactRef, weights: ArtifactRef
) -> ArtifactRef:
    """Train the student."""
    return perform(TRAIN, config, prompts=prompts, responses=responses, weights=weights)
