"""Task: the report, the figures and the cards."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import PUBLISH
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(PUBLISH))
def publish(
    config: DistillConfig,
    prompts: ArtifactRef,
    responses: ArtifactRef,
    rewards: ArtifactRef,
    weights: ArtifactRef,
    student: ArtifactRef,
    scores_before: ArtifactRef,
    scores_after: ArtifactRef,
    loaded: ArtifactRef | None = None,
    generated: ArtifactRef | None = None,
    scores: dict[str, ArtifactRef] | None = None,
    standard: dict[str, ArtifactRef] | None = None,
    likelihoods: dict[str, ArtifactRef] | None = None,
) -> ArtifactRef:
    """Write the report of a finished distillation.

    Args:
        loaded, generated: prompts and responses before the gate.
        scores: of other sets, samples and models, by `before|after|teacher/SET[/samples]`.
        standard: of the standard tasks, by `before|after`.
        likelihoods: of right and wrong responses, by `before|after`.
    """
    return perform(
        PUBLISH,
        config,
        prompts=prompts,
        responses=responses,
        rewards=rewards,
        weights=weights,
        student=student,
        scores_before=scores_before,
        scores_after=scores_after,
        loaded=loaded,
        generated=generated,
        scores=scores,
        standard=standard,
        likelihoods=likelihoods,
    )
