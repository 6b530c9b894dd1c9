"""Task: questions from their source into the prompts table."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import LOAD
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(LOAD))
def load(config: DistillConfig) -> ArtifactRef:
    """Load the questions and split them into training and held-out ones."""
    return perform(LOAD, config)
