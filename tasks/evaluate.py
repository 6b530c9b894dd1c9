"""Task: a model's answers to the held-out questions, graded."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import EVALUATE
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(EVALUATE))
def evaluate(
    config: DistillConfig, prompts: ArtifactRef, student: ArtifactRef | None = None, *, model: str
) -> ArtifactRef:
    """Measure a model.

    Args:
        model: `student_before`, `student_after` (needs `student`) or `teacher`.
    """
    return perform(EVALUATE, config, prompts=prompts, student=student, model=model)
