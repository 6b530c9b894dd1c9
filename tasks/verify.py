"""Task: a verdict and a reward for every response."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import VERIFY
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(VERIFY))
def verify(config: DistillConfig, prompts: ArtifactRef, responses: ArtifactRef) -> ArtifactRef:
    """Grade the responses against the reference answers."""
    return perform(VERIFY, config, prompts=prompts, responses=responses)
