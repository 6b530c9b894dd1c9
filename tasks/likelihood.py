"""Task: how likely a student finds right and wrong responses."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import LIKELIHOOD
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(LIKELIHOOD))
def likelihood(
    config: DistillConfig,
    prompts: ArtifactRef,
    responses: ArtifactRef,
    rewards: ArtifactRef,
    student: ArtifactRef | None = None,
    *,
    model: str,
) -> ArtifactRef:
    """Measure `evaluation.likelihoods` of the teacher's responses.

    Args:
        model: `student_before`, or `student_after` with `student`.
    """
    given = {"prompts": prompts, "responses": responses, "rewards": rewards, "student": student}
    return perform(LIKELIHOOD, config, **given, model=model)
