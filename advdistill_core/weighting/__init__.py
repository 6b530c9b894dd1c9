"""From rewards to advantages to weights, one group of responses at a time."""

from advdistill_core.weighting.advantages import advantages
from advdistill_core.weighting.groups import GroupWeights, weigh_group
from advdistill_core.weighting.schemes import effective_sample_size, scheme_weights

__all__ = ["GroupWeights", "advantages", "effective_sample_size", "scheme_weights", "weigh_group"]
