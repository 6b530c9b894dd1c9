"""Task: the data set and the student on a model hub."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import PUSH
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(PUSH))
def push(
    config: DistillConfig,
    report: ArtifactRef,
    prompts: ArtifactRef,
    responses: ArtifactRef,
    rewards: ArtifactRef,
    weights: ArtifactRef,
    student: ArtifactRef,
) -> ArtifactRef:
    """Push to the repositories of `storage.hub_dataset` and `storage.hub_model`."""
    given = {"prompts": prompts, "responses": responses, "rewards": rewards, "weights": weights}
    return perform(PUSH, config, report=report, student=student, **given)
