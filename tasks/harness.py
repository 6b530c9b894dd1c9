"""Task: standard tasks by lm-evaluation-harness."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import HARNESS
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(HARNESS))
def harness(config: DistillConfig, student: ArtifactRef | None = None, *, model: str) -> ArtifactRef:
    """Measure the student on the tasks of `evaluation.harness`.

    Args:
        model: `student_before`, or `student_after` with `student`.
    """
    return perform(HARNESS, config, student=student, model=model)
