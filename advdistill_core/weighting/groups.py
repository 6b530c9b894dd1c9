"""The weights of one group: degenerate groups, prompt weights, merged duplicates."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from advdistill_core.config.weighting import WeightingConfig
from advdistill_core.errors import InputError
from advdistill_core.weighting.advantages import Floats, advantages
from advdistill_core.weighting.schemes import (
    REWARD_BLIND,
    normalise,
    scheme_weights,
    uniform_weights,
    without_slight,
)

Kind = Literal["mixed", "all_correct", "all_wrong", "ungradable"]


@dataclass(frozen=True)
class GroupWeights:
    """The weights of one prompt's k responses.

    Args:
        kind: which of them are correct; `ungradable` when no reward is known.
        advantage: (k,) NaN where the reward is null.
        weight: (k,) 0 for a response that is not trained on.
        prompt_weight: multiplies the weight of every response of the group.
        merged_into: for each response the position of the equal one that carries its
            weight, or None.
        slight: gradable responses left out since their weight was below `min_weight_frac`.
    """

    kind: Kind
    advantage: Floats
    weight: Floats
    prompt_weight: float
    merged_into: list[int | None]
    slight: int

    @property
    def dropped(self) -> bool:
        """Whether nothing of the group is trained on."""
        return self.prompt_weight == 0 or not self.weight.any()


def weigh_group(
    rewards: Sequence[float | None],
    correct: Sequence[bool],
    config: WeightingConfig,
    identities: Sequence[Hashable] | None = None,
) -> GroupWeights:
    """Turn one group's rewards into weights.

    Args:
        rewards: k rewards; None for a response that could not be graded. It gets weight 0
            and the others are as if it were absent.
        correct: k verdicts; those of ungradable responses are not looked at.
        config: the weighting section.
        identities: what makes two responses equal (their text and how they end); None to
            merge nothing.

    Raises:
        InputError: a reward is not finite.
    """
    reward = np.array([np.nan if r is None else r for r in rewards], dtype=np.float64)
    known = np.array([r is not None for r in rewards], dtype=bool)
    if not np.isfinite(reward[known]).all():
        raise InputError("reward", list(rewards), "finite numbers or null")
    advantage, weight = np.full(len(reward), np.nan), np.zeros(len(reward))
    right = np.array(correct, dtype=bool)[known]
    kind, slight = _kind(right), 0
    if kind != "ungradable":
        advantage[known] = advantages(reward[known], config)
        weight[known], slight = _weights(kind, advantage[known], right, reward[known], config)
    merged: list[int | None] = [None] * len(reward)
    if config.merge_duplicates and identities is not None:
        weight, merged = merge_duplicates(weight, identities)
    return GroupWeights(kind, advantage, weight, _prompt_weight(right, config), merged, slight)


def _kind(right: np.ndarray) -> Kind:
    if not right.size:
        return "ungradable"
    return "all_correct" if right.all() else "mixed" if right.any() else "all_wrong"


def _weights(
    kind: Kind, a: Floats, right: np.ndarray, rewards: Floats, config: WeightingConfig
) -> tuple[Floats, int]:
    """Normalised weights of the gradable responses, and how many were left out as too slight."""
    policy = "weigh"
    if config.scheme not in REWARD_BLIND:
        policy = {"all_wrong": config.all_wrong, "all_correct": config.all_correct}.get(kind, "weigh")
    if policy == "drop":
        return np.zeros_like(a), 0
    if policy == "uniform" and not (config.scheme == "best" and kind == "all_correct"):
        return normalise(uniform_weights(len(a), config), config), 0
    whole = scheme_weights(a, right, rewards, config)
    kept = without_slight(whole, config)
    return normalise(kept, config), int((kept != whole).sum())


def _prompt_weight(right: np.ndarray, config: WeightingConfig) -> float:
    """1, or 4p(1-p) of the pass rate p: 1 at one half, 0 where all agree."""
    if config.prompt_weight == "one" or not right.size:
        return 1.0
    p = float(right.mean())
    return 4.0 * p * (1.0 - p)


def merge_duplicates(weight: Floats, identities: Sequence[Hashable]) -> tuple[Floats, list[int | None]]:
    """Give the weight of equal responses to the first of them: same gradient, less work.

    Returns:
        The weights (k,) and for each response the position that carries its weight, or
        None. A response without weight is not merged.
    """
    merged_weight = weight.copy()
    merged: list[int | None] = [None] * len(weight)
    carrier: dict[Hashable, int] = {}
    for i, identity in enumerate(identities):
        if weight[i] == 0:
            continue
        first = carrier.setdefault(identity, i)
        if first != i:
            merged_weight[first] += weight[i]
            merged_weight[i] = 0.0
            merged[i] = first
    return merged_weight, merged
