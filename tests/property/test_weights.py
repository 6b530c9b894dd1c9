"""Properties of advantages and weights over random groups."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advdistill_core.config import WeightingConfig
from advdistill_core.weighting import advantages, weigh_group

REWARDS = st.lists(st.floats(-10, 10, allow_nan=False).map(lambda x: round(x, 3)), min_size=1, max_size=16)
KINDS = ["zscore", "mean", "loo", "rank"]
SCHEMES = ["softmax", "positive", "exp_clip", "shifted", "filter", "best", "uniform", "first"]
MONOTONE = ["softmax", "positive", "exp_clip", "shifted", "best"]


def weigh(rewards, right=None, **config):
    median = float(np.median([r for r in rewards if r is not None] or [0.0]))
    right = [r is not None and r >= median for r in rewards] if right is None else right
    return weigh_group(rewards, right, WeightingConfig(**config))


@pytest.mark.parametrize("kind", KINDS)
@given(rewards=REWARDS)
def test_advantages_of_a_group_sum_to_zero(kind, rewards):
    a = advantages(np.array(rewards), WeightingConfig(advantage=kind))
    assert abs(a.sum()) < 1e-9 * max(1.0, np.abs(a).max())


@given(rewards=REWARDS)
def test_zscores_are_bounded(rewards):
    k = len(rewards)
    a = advantages(np.array(rewards), WeightingConfig(s_min=0.0, eps=0.0))
    assert np.abs(a).max() <= (k - 1) / math.sqrt(k) + 1e-9


def test_the_bound_on_zscores_is_reached():
    a = advantages(np.array([1.0] + [0.0] * 7), WeightingConfig(s_min=0.0, eps=0.0))
    assert a[0] == pytest.approx(7 / math.sqrt(8))


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "first"])
@given(rewards=REWARDS, data=st.data())
def test_a_permutation_permutes_the_weights(scheme, rewards, data):
    order = data.draw(st.permutations(range(len(rewards))))
    straight = weigh(rewards, scheme=scheme)
    permuted = weigh([rewards[i] for i in order], scheme=scheme)
    assert permuted.weight == pytest.approx(straight.weight[order], abs=1e-12)
    assert permuted.advantage == pytest.approx(straight.advantage[order], abs=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("normalisation", ["group_sum", "group_mean_1"])
@given(rewards=REWARDS)
def test_weights_are_not_negative_and_sum_to_one_or_k(scheme, normalisation, rewards):
    got = weigh(rewards, scheme=scheme, normalisation=normalisation)
    assert (got.weight >= 0).all()
    assert got.weight.sum() == pytest.approx(1.0 if normalisation == "group_sum" else len(rewards))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", MONOTONE)
@given(rewards=REWARDS)
def test_weights_rise_with_the_reward_and_ties_are_equal(kind, scheme, rewards):
    got = weigh(rewards, scheme=scheme, advantage=kind)
    order = np.argsort(rewards, kind="stable")
    assert (np.diff(got.weight[order]) >= -1e-12).all()
    for reward in set(rewards):
        tied = got.weight[np.array(rewards) == reward]
        assert tied == pytest.approx(tied[0], abs=1e-12)


@pytest.mark.parametrize("scheme", ["softmax", "positive", "exp_clip", "shifted"])
@given(rewards=REWARDS, frac=st.floats(0, 1))
def test_slight_weights_go_and_the_others_keep_their_proportions(scheme, rewards, frac):
    right = [i == 0 for i in range(len(rewards))]
    config = {"scheme": scheme, "all_correct": "weigh"}
    whole = weigh(rewards, right, **config, min_weight_frac=0.0).weight
    got = weigh(rewards, right, **config, min_weight_frac=frac)
    kept = got.weight > 0
    assert not kept[whole < (frac - 1e-9) * whole.max()].any()
    assert kept[(whole >= (frac + 1e-9) * whole.max()) & (whole > 0)].all()
    assert got.weight[kept] * whole[kept].sum() == pytest.approx(whole[kept] * got.weight[kept].sum())
    assert got.slight == ((whole > 0) & ~kept).sum()


@given(rewards=REWARDS, data=st.data())
def test_responses_without_a_reward_change_nothing_for_the_others(rewards, data):
    where = data.draw(st.lists(st.integers(0, len(rewards)), max_size=4))
    holed: list[float | None] = list(rewards)
    for i in sorted(where, reverse=True):
        holed.insert(i, None)
    straight, got = weigh(rewards), weigh(holed)
    known = [i for i, r in enumerate(holed) if r is not None]
    assert got.weight[known].tolist() == straight.weight.tolist()
    assert got.advantage[known].tolist() == straight.advantage.tolist()


@given(rewards=REWARDS, shift=st.floats(-5, 5), scale=st.floats(1, 100))
def test_zscore_weights_ignore_shift_and_scale_of_the_rewards(rewards, shift, scale):
    right = [r >= np.median(rewards) for r in rewards]
    # every weight kept: at the least weight rounding decides, so there it is no continuous function
    config = {"s_min": 0.0, "eps": 0.0, "tau": 1.0, "min_weight_frac": 0.0}
    if len(set(rewards)) > 1:
        got = weigh([shift + scale * r for r in rewards], right, **config).weight
        assert got == pytest.approx(weigh(rewards, right, **config).weight, abs=1e-6)


@pytest.mark.parametrize("scheme", ["softmax", "exp_clip"])
@given(rewards=REWARDS)
def test_no_overflow_at_tiny_temperatures(scheme, rewards):
    tiny = {"tau": 1e-6} if scheme == "softmax" else {"beta": 1e-6}
    got = weigh(rewards, scheme=scheme, advantage="raw", **tiny)
    assert np.isfinite(got.weight).all()
    assert got.weight.sum() == pytest.approx(1.0) or not any(r > 0 for r in rewards)


@given(rewards=REWARDS, texts=st.data())
def test_merging_keeps_the_weight_of_every_text(rewards, texts):
    ids = texts.draw(st.lists(st.sampled_from("abc"), min_size=len(rewards), max_size=len(rewards)))
    right = [True] * len(rewards)
    # every weight kept: a text whose weight is left out has none to carry
    config = WeightingConfig(all_correct="weigh", min_weight_frac=0.0)
    apart = weigh_group(rewards, right, config)
    merged = weigh_group(rewards, right, config, ids)
    for text in set(ids):
        mine = np.array([t == text for t in ids])
        assert merged.weight[mine].sum() == pytest.approx(apart.weight[mine].sum())
        assert (merged.weight[mine] > 0).sum() == 1
