"""Advantages: the rewards of one group, relative to each other.

Sources: `zscore` is GRPO (Shao et al. 2024), `mean` is Dr. GRPO (Liu et al. 2025), `loo`
is RLOO (Ahmadian et al. 2024). The floor `s_min` is our own: it keeps the tiny format
differences inside an all-correct group from being blown up, and with 0/1 rewards and 8
responses it never touches a mixed group (whose sample deviation is at least 0.354).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from advdistill_core.config.weighting import WeightingConfig

Floats = npt.NDArray[np.float64]


def zscore(rewards: Floats, config: WeightingConfig) -> Floats:
    """(r - mean) / (max(std, s_min) + eps)."""
    centred = mean(rewards, config)
    std = float(np.sqrt(np.sum(centred**2) / max(len(rewards) - config.ddof, 1)))
    scale = max(std, config.s_min) + config.eps
    if scale == 0:  # then all rewards are equal
        return centred
    return np.asarray(centred / scale, dtype=np.float64)


def mean(rewards: Floats, config: WeightingConfig) -> Floats:
    """r - mean; exactly 0 where all rewards are equal, whatever the mean rounds to."""
    if np.all(rewards == rewards[0]):
        return np.zeros_like(rewards)
    return np.asarray(rewards - rewards.mean())


def loo(rewards: Floats, config: WeightingConfig) -> Floats:
    """r minus the mean of the others, which is k/(k-1) times r minus the mean; 0 for k = 1."""
    k = len(rewards)
    return mean(rewards, config) * (k / (k - 1) if k > 1 else 1.0)


def rank(rewards: Floats, config: WeightingConfig) -> Floats:
    """Rank from -1 (worst) to 1 (best), ties sharing their average rank; 0 for k = 1."""
    k = len(rewards)
    if k == 1:
        return np.zeros(1)
    _, inverse, counts = np.unique(rewards, return_inverse=True, return_counts=True)
    average_rank = np.cumsum(counts) - (counts + 1) / 2  # 0-based
    return np.asarray(2.0 * average_rank[inverse] / (k - 1) - 1.0)


def raw(rewards: Floats, config: WeightingConfig) -> Floats:
    """The rewards as they are."""
    return rewards.copy()


_KINDS: dict[str, Callable[[Floats, WeightingConfig], Floats]] = {
    "zscore": zscore,
    "mean": mean,
    "loo": loo,
    "rank": rank,
    "raw": raw,
}


def advantages(rewards: Floats, config: WeightingConfig) -> Floats:
    """Advantages (k,) of one group.

    Args:
        rewards: (k,) finite rewards of the gradable responses, k >= 1. A response that
            could not be graded is left out, so that the others are as if it were absent.
        config: the kind and its parameters.
    """
    return _KINDS[config.advantage](np.asarray(rewards, dtype=np.float64), config)
