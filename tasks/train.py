"""Task: the student, trained on the weighted responses."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import TRAIN
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(TRAIN))
def train(
    config: DistillConfig,
    prompts: ArtifactRef,
    responses: ArtifactRef,
    weights: ArtifactRef,
    rewards: ArtifactRef | None = None,
) -> ArtifactRef:
    """Train the student.

    Args:
        rewards: only where `student.negatives` needs to tell right from wrong.
    """
    return perform(TRAIN, config, prompts=prompts, responses=responses, weights=weights, rewards=rewards)


def rewards_for(config: DistillConfig, rewards: ArtifactRef) -> ArtifactRef | None:
    """The rewards, where training reads them: else changing them must not train again."""
    return None if config.student.negatives.kind == "off" else rewards
