"""Task: the questions of an evaluation set."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import QUESTIONS
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(QUESTIONS))
def questions(config: DistillConfig, *, set: str) -> ArtifactRef:
    """Load one of `evaluation.sets`, by name."""
    return perform(QUESTIONS, config, set=set)
