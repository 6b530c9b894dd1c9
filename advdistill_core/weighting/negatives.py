"""How much each wrong response counts in the second stage of training."""

import numpy as np
import numpy.typing as npt

from advdistill_core.weighting.advantages import Floats


def negative_weights(advantage: Floats, correct: npt.NDArray[np.bool_]) -> Floats:
    """max(-A, 0) of the wrong responses of a group, made to sum to 1.

    Source: METHOD section 5. Without a correct response there is nothing to prefer.

    Args:
        advantage: (k,) NaN where the response could not be graded.
        correct: (k,) verdicts.

    Returns:
        (k,) weights, all 0 where no response is correct or none is below the mean.
    """
    v = np.where(correct | np.isnan(advantage), 0.0, np.maximum(-advantage, 0.0))
    if not correct[~np.isnan(advantage)].any() or v.sum() == 0:
        return np.zeros(len(v))
    return np.asarray(v / v.sum())
