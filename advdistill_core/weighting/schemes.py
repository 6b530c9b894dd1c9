"""Weights: what an advantage is worth in training.

`exp_clip` is AWR (Peng et al. 2019: beta 1, clip 20). `filter`, `best`, `uniform` and
`first` are the baselines RFT, best-of-k, SFT on all and SFT on one. The rest is our own.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from advdistill_core.config.weighting import WeightingConfig
from advdistill_core.weighting.advantages import Floats

Bools = npt.NDArray[np.bool_]


def softmax(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """exp((A - max A) / tau) / sum: tau to 0 is best of k, tau to infinity is uniform."""
    with np.errstate(under="ignore", over="ignore"):
        w = np.exp((a - a.max()) / config.tau)
    return np.asarray(w / w.sum())


def positive(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """max(A, 0) / sum; all 0 where no advantage is positive."""
    w = np.maximum(a, 0.0)
    return w / w.sum() if w.sum() > 0 else w


def exp_clip(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """min(exp(A / beta), clip)."""
    with np.errstate(under="ignore", over="ignore"):
        return np.minimum(np.exp(a / config.beta), config.clip)


def shifted(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """max(0, 1 + c A)."""
    return np.maximum(0.0, 1.0 + config.c * a)


def linear(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """A itself, the negative ones too."""
    return a.copy()


def filter_correct(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """1 for the correct, 0 for the others."""
    return correct.astype(np.float64)


def best(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """All of the weight on the highest reward, ties sharing it."""
    top = rewards == rewards.max()
    return np.asarray(top / top.sum())


def uniform(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """1 each."""
    return np.ones_like(a)


def first(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """All of the weight on the first response."""
    w = np.zeros_like(a)
    w[0] = 1.0
    return w


_SCHEMES: dict[str, Callable[[Floats, Bools, Floats, WeightingConfig], Floats]] = {
    "softmax": softmax,
    "positive": positive,
    "exp_clip": exp_clip,
    "shifted": shifted,
    "linear": linear,
    "filter": filter_correct,
    "best": best,
    "uniform": uniform,
    "first": first,
}

#: Schemes that copy responses without looking at rewards: no group is degenerate to them.
REWARD_BLIND = ("uniform", "first")


def scheme_weights(a: Floats, correct: Bools, rewards: Floats, config: WeightingConfig) -> Floats:
    """Weights (k,) of one group by the configured scheme, before normalisation.

    Args:
        a: (k,) advantages.
        correct: (k,) which responses are correct; read by `filter` only.
        rewards: (k,) rewards; read by `best` only.
    """
    return _SCHEMES[config.scheme](a, correct, rewards, config)


def uniform_weights(k: int, config: WeightingConfig) -> Floats:
    """Weights of k equal responses, before normalisation.

    1/k for the schemes that sum to 1 by definition, else 1: what the scheme gives where
    every advantage is 0.
    """
    share = config.scheme in ("softmax", "positive", "linear", "best")
    return np.full(k, 1.0 / k if share else 1.0)


def without_slight(w: Floats, config: WeightingConfig) -> Floats:
    """The weights (k,) with those below `min_weight_frac` of the largest set to 0.

    `linear` keeps all: its negative weights are not slight.
    """
    if config.scheme == "linear":
        return w
    return np.where(w < config.min_weight_frac * w.max(), 0.0, w)


def normalise(w: Floats, config: WeightingConfig) -> Floats:
    """Make a group's weights sum to 1, average 1, or leave them.

    Negative weights (`linear`) keep their proportion to the positive ones, which are what
    is made to sum to 1.
    """
    total = np.maximum(w, 0.0).sum()
    if config.normalisation == "none" or total == 0:
        return w
    target = 1.0 if config.normalisation == "group_sum" else float(len(w))
    return np.asarray(w * (target / total))


def effective_sample_size(w: Floats) -> float:
    """(sum w)^2 / sum w^2 of non-negative weights (Kish); 0 where all are 0."""
    w = np.maximum(w, 0.0)
    return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0
