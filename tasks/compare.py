"""Task: the tables and the page of a comparison."""

from prefect import task

from advdistill_core.config import DistillConfig
from advdistill_core.stages import COMPARE
from advdistill_core.store import ArtifactRef
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(COMPARE))
def publish_comparison(
    config: DistillConfig,
    weights: dict[str, ArtifactRef],
    students: dict[str, ArtifactRef],
    scores: dict[str, ArtifactRef],
    *,
    reference: str,
) -> ArtifactRef:
    """Compare the arms.

    Args:
        weights: by arm.
        students: by `ARM/SEED`.
        scores: by `ARM/SEED/SET`, and `ARM/SEED/SET/samples` where sampled too.
        reference: the arm that the others are compared with.
    """
    return perform(COMPARE, config, weights=weights, students=students, scores=scores, reference=reference)
