"""Task: the questions that a line of students has not seen."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import SELECT
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(SELECT))
def select(config: DistillConfig, prompts: ArtifactRef, before: ArtifactRef | None = None) -> ArtifactRef:
    """Choose the new questions.

    Args:
        before: the selection of the current champion.
    """
    return perform(SELECT, config, prompts=prompts, before=before)
