"""Task: rewards into advantages and training weights."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import WEIGH
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(WEIGH))
def weigh(config: DistillConfig, responses: ArtifactRef, rewards: ArtifactRef) -> ArtifactRef:
    """Turn each group's rewards into weights."""
    return perform(WEIGH, config, responses=responses, rewards=rewards)
