"""Weights against numbers worked out by hand.

Tests of the schemes' formulas keep every weight (`ALL`): the default leaves slight ones out
afterwards, which has tests of its own.
"""

import numpy as np
import pytest

from advdistill_core.config import WeightingConfig
from advdistill_core.errors import InputError
from advdistill_core.rewards.parts import brevity
from advdistill_core.weighting import advantages, effective_sample_size, weigh_group

# (correct of 8, tau) -> (share of the weight on correct, effective sample size), to three figures
GOLDEN = {
    (1, 2.0): (0.393, 4.83), (1, 1.0): (0.746, 1.77), (1, 0.5): (0.984, 1.03), (1, 0.25): (1.00, 1.00),
    (2, 2.0): (0.514, 5.83), (2, 1.0): (0.770, 3.27), (2, 0.5): (0.971, 2.12), (2, 0.25): (1.00, 2.00),
    (4, 2.0): (0.731, 6.59), (4, 1.0): (0.881, 5.06), (4, 0.5): (0.982, 4.15), (4, 0.25): (1.00, 4.00),
    (6, 2.0): (0.905, 7.09), (6, 1.0): (0.968, 6.38), (6, 0.5): (0.997, 6.04), (6, 0.25): (1.00, 6.00),
    (7, 2.0): (0.969, 7.40), (7, 1.0): (0.993, 7.10), (7, 0.5): (1.00, 7.00), (7, 0.25): (1.00, 7.00),
}  # fmt: skip

ALL = {"min_weight_frac": 0.0}
LEAVES_OUT = ("softmax", "positive", "exp_clip", "shifted")  # where the setting is read


def group(correct: int, k: int = 8, **config: object):
    right = [i < correct for i in range(k)]
    return weigh_group([float(r) for r in right], right, WeightingConfig(**config))


@pytest.mark.parametrize(("correct", "tau"), GOLDEN)
def test_golden_table(correct: int, tau: float):
    weights = group(correct, tau=tau, ddof=0, s_min=0, eps=0, **ALL).weight
    share, size = GOLDEN[correct, tau]
    assert weights[:correct].sum() == pytest.approx(share, abs=0.0051 if share == 1 else 0.00051)
    assert effective_sample_size(weights) == pytest.approx(size, abs=0.0051)


def test_zscore_by_hand():
    # rewards 1, 0, 0, 0: mean 1/4, sample variance ((3/4)^2 + 3 (1/4)^2) / 3 = 1/4, std 1/2
    config = WeightingConfig(eps=0.0, s_min=0.0)
    assert advantages(np.array([1.0, 0, 0, 0]), config) == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert advantages(np.array([1.0, 0, 0, 0]), WeightingConfig()) == pytest.approx(
        np.array([0.75, -0.25, -0.25, -0.25]) / 0.5001
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean", [0.75, -0.25, -0.25, -0.25]),
        ("loo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("rank", [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("raw", [1.0, 0, 0, 0]),
    ],
)
def test_other_advantages_by_hand(kind: str, expected: list[float]):
    assert advantages(np.array([1.0, 0, 0, 0]), WeightingConfig(advantage=kind)) == pytest.approx(expected)


def test_floor_leaves_every_mixed_group_of_eight_alone_and_stops_tiny_differences():
    floored, free = WeightingConfig(eps=0.0), WeightingConfig(eps=0.0, s_min=0.0)
    for c in range(1, 8):
        rewards = np.array([1.0] * c + [0.0] * (8 - c))
        assert advantages(rewards, floored) == pytest.approx(advantages(rewards, free))
    tiny = np.array([1.1, 1.1, 1.1, 1.09])
    assert np.abs(advantages(tiny, free)).max() > 1.4
    assert np.abs(advantages(tiny, floored)).max() < 0.03


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [  # advantage "raw": A = 1, 1, 0, -1
        ("positive", [0.5, 0.5, 0, 0]),
        ("exp_clip", np.array([np.e, np.e, 1, 1 / np.e]) / (2 * np.e + 1 + 1 / np.e)),
        ("shifted", np.array([1.5, 1.5, 1, 0.5]) / 4.5),
        ("linear", [0.5, 0.5, 0, -0.5]),
        ("filter", [0.5, 0.5, 0, 0]),
        ("best", [0.5, 0.5, 0, 0]),
        ("uniform", [0.25] * 4),
        ("first", [1, 0, 0, 0]),
        ("softmax", np.exp([0, 0, -2, -4]) / np.exp([0, 0, -2, -4]).sum()),
    ],
)
def test_schemes_by_hand(scheme: str, expected: list[float]):
    config = WeightingConfig(scheme=scheme, advantage="raw", **(ALL if scheme in LEAVES_OUT else {}))
    got = weigh_group([1.0, 1.0, 0.0, -1.0], [True, True, False, False], config)
    assert got.weight == pytest.approx(np.asarray(expected))


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("exp_clip", [np.e, 1, 1 / np.e]),
        ("shifted", [1.5, 1, 0.5]),
        ("filter", [1, 0, 0]),
        ("uniform", [1, 1, 1]),
        ("linear", [1, 0, -1]),
        ("positive", [1, 0, 0]),
    ],
)
def test_normalisation_none_leaves_the_scheme_alone(scheme: str, expected: list[float]):
    config = WeightingConfig(scheme=scheme, advantage="raw", normalisation="none")
    assert weigh_group([1.0, 0.0, -1.0], [True, False, False], config).weight == pytest.approx(expected)


def test_exp_clip_clips():
    config = WeightingConfig(scheme="exp_clip", advantage="raw", normalisation="none", **ALL)
    assert weigh_group([1e9, 0.0], [True, False], config).weight.tolist() == [20.0, 1.0]


def test_degenerate_groups():
    assert group(0).kind == "all_wrong"
    assert group(0).dropped
    assert not group(0).weight.any()
    assert group(0, all_wrong="uniform").weight == pytest.approx([1 / 8] * 8)
    graded = [1.3, 1.2, 1.1, 1.0]
    assert weigh_group(graded, [True] * 4, WeightingConfig()).weight == pytest.approx([0.25] * 4)
    weighed = weigh_group(graded, [True] * 4, WeightingConfig(all_correct="weigh")).weight
    assert np.all(np.diff(weighed) < 0)
    assert weigh_group(graded, [True] * 4, WeightingConfig(all_correct="drop")).dropped
    # plain SFT looks at no reward, so to it no group is degenerate
    assert group(0, scheme="first").weight.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert group(0, scheme="uniform").weight == pytest.approx([1 / 8] * 8)
    # the best of an all-correct group is still the best
    best = weigh_group(graded, [True] * 4, WeightingConfig(scheme="best"))
    assert best.weight.tolist() == [1, 0, 0, 0]


def test_ungradable_responses_are_left_out():
    got = weigh_group([1.0, None, 0.0], [True, False, False], WeightingConfig())
    alone = weigh_group([1.0, 0.0], [True, False], WeightingConfig())
    assert got.weight[[0, 2]].tolist() == alone.weight.tolist()
    assert got.weight[1] == 0
    assert np.isnan(got.advantage[1])
    assert got.kind == "mixed"
    # a failed check is not a wrong answer: what is left here is all correct
    assert weigh_group([1.0, None], [True, False], WeightingConfig()).kind == "all_correct"
    nothing = weigh_group([None, None], [False, False], WeightingConfig())
    assert nothing.kind == "ungradable"
    assert nothing.dropped


def test_prompt_weight_by_difficulty():
    weights = [group(c, prompt_weight="difficulty").prompt_weight for c in (1, 4, 8)]
    assert weights == pytest.approx([4 * 1 / 8 * 7 / 8, 1.0, 0.0])
    assert group(8, prompt_weight="difficulty").dropped


def test_equal_responses_are_merged_with_their_weight():
    texts = ["a", "b", "a", "a", "c"]
    rewards, right = [1.0, 0.0, 1.0, 1.0, None], [True, False, True, True, False]
    apart = weigh_group(rewards, right, WeightingConfig(), None)
    merged = weigh_group(rewards, right, WeightingConfig(), texts)
    assert merged.advantage[:4].tolist() == apart.advantage[:4].tolist()
    assert merged.weight.tolist() == pytest.approx([apart.weight[[0, 2, 3]].sum(), apart.weight[1], 0, 0, 0])
    assert merged.merged_into == [None, None, 0, 0, None]
    kept = weigh_group(rewards, right, WeightingConfig(merge_duplicates=False), texts)
    assert kept.merged_into == [None] * 5


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="finite"):
        weigh_group([1.0, float("nan")], [True, False], WeightingConfig())


@pytest.mark.parametrize(
    "ignored",
    [
        {"scheme": "positive", "tau": 1.0},
        {"scheme": "softmax", "beta": 2.0},
        {"advantage": "mean", "s_min": 0.1},
        {"scheme": "uniform", "all_wrong": "uniform"},
        {"scheme": "best", "all_correct": "drop"},
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(ignored: dict[str, object]):
    with pytest.raises(ValueError, match="would be ignored"):
        WeightingConfig(**ignored)


def test_slight_weights_are_left_out_and_the_others_keep_their_proportions():
    # 4 of 8 right, tau 1: a wrong one has exp(-1 / 0.5346) = 0.154 of a right one's weight
    whole = group(4, tau=1.0, **ALL)
    assert whole.weight[4] / whole.weight[0] == pytest.approx(0.154, abs=0.0005)
    kept, pruned = group(4, tau=1.0, min_weight_frac=0.15), group(4, tau=1.0, min_weight_frac=0.16)
    assert kept.weight == pytest.approx(whole.weight)
    assert pruned.weight == pytest.approx([0.25] * 4 + [0.0] * 4)
    assert pruned.advantage == pytest.approx(whole.advantage)
    assert (kept.slight, pruned.slight) == (0, 4)
    graded = weigh_group([1.0, 1.2, 0.0], [True, True, False], WeightingConfig())
    full = weigh_group([1.0, 1.2, 0.0], [True, True, False], WeightingConfig(**ALL))
    assert graded.weight[2] == 0
    assert graded.weight[0] / graded.weight[1] == pytest.approx(full.weight[0] / full.weight[1])
    assert graded.weight.sum() == pytest.approx(1.0)


def test_where_a_least_weight_would_be_ignored_it_is_refused():
    with pytest.raises(ValueError, match="min_weight_frac would be ignored with linear"):
        WeightingConfig(scheme="linear", min_weight_frac=0.2)


@pytest.mark.parametrize("k", range(2, 17))
def test_by_default_wrong_responses_of_a_mixed_group_are_left_out_with_rewards_of_0_and_1(k: int):
    for correct in range(1, k):
        got, right = group(correct, k), np.arange(k) < correct
        assert got.weight == pytest.approx(right / correct)  # what RFT per prompt trains on
        assert got.slight == k - correct


def test_by_default_right_responses_stay_whatever_the_other_parts_of_the_reward_say():
    # the default rubric: 1 for right; format, tags and length add up to 0.3, repetition takes 0.1
    graded = [1.3, 1.2, 1.1, 1.0, 0.2, 0.1, 0.0, -0.1]
    got = weigh_group(graded, [r >= 1 for r in graded], WeightingConfig())
    assert (got.weight[:4] > 0).all()
    assert not got.weight[4:].any()
    assert got.slight == 4


def test_by_default_negative_weights_are_no_slight_ones():
    got = weigh_group([1.0, 0.0, 0.0], [True, False, False], WeightingConfig(scheme="linear"))
    assert got.weight == pytest.approx([1.0, -0.5, -0.5])
    assert got.slight == 0


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({"tau": tau}, 3) for tau in (0.5, 0.1, 0.01)] + [({"tau": 0.001}, 2), ({"scheme": "best"}, 1)],
)
def test_only_a_very_small_tau_tells_right_responses_apart_by_their_length(settings: dict, kept: int):
    # the default rubric's 0.1 for brevity, over 256 tokens: right ones of 12, 20 and 30 tokens
    right = [1.0 + 0.1 * brevity(tokens, 256) for tokens in (12, 20, 30)]
    got = weigh_group([*right, *[0.0] * 5], [True] * 3 + [False] * 5, WeightingConfig(**settings))
    assert (got.weight > 0).tolist() == [True] * kept + [False] * (8 - kept)
