"""Task: a model's answers to a set of questions, graded."""

from typing import Literal

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import EVALUATE
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(EVALUATE))
def evaluate(
    config: DistillConfig,
    prompts: ArtifactRef,
    student: ArtifactRef | None = None,
    *,
    model: str,
    set: str | None = None,
    sampling: Literal["samples"] | None = None,
) -> ArtifactRef:
    """Measure a model.

    Args:
        prompts: whose held-out questions are asked.
        model: `student_before`, `student_after` or `champion` (need `student`) or `teacher`.
        set: what the questions are called; the held-out ones without it.
        sampling: `samples` for `evaluation.more_samples`; the ordinary answers without it.
    """
    return perform(
        EVALUATE, config, prompts=prompts, student=student, model=model, set=set, sampling=sampling
    )
