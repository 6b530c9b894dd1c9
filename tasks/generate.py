"""Task: k responses of the teacher to every training prompt."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import GENERATE
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(GENERATE))
def generate(config: DistillConfig, prompts: ArtifactRef) -> ArtifactRef:
    """Let the teacher answer, shard by shard."""
    return perform(GENERATE, config, prompts=prompts)
