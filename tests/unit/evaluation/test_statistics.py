"""Statistics against numbers worked out by hand, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest

from advdistill_core.evaluation.statistics import (
    accuracy,
    holm,
    maj_at_k,
    paired_difference,
    pass_at_1,
    pass_at_k,
    wilson,
)


def test_pass_at_k_equals_brute_force_over_subsets() -> None:
    for n, c, k in [(8, 3, 4), (5, 0, 2), (5, 5, 3), (6, 1, 6), (7, 2, 1)]:
        samples = [True] * c + [False] * (n - c)
        subsets = list(itertools.combinations(samples, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))
    assert pass_at_k(8, 3, 4) == pytest.approx(0.92857, abs=5e-6)


def test_pass_at_1_does_not_depend_on_the_number_of_samples() -> None:
    rng = np.random.default_rng(0)
    p = 0.3
    for n in (1, 4, 32):
        mean = np.mean([pass_at_1(n, int(rng.binomial(n, p))) for _ in range(20_000)])
        assert mean == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n / 20_000))


def test_pass_at_k_refuses_fewer_samples_than_k() -> None:
    with pytest.raises(ValueError, match="expected 1 <= k <= n"):
        pass_at_k(4, 2, 5)


def test_majority_counts_ties_by_share_and_ignores_missing_votes() -> None:
    assert maj_at_k(["1", "2", "1"], [True, False, True], 3) == 1.0
    assert maj_at_k(["2", "2", "1"], [False, False, True], 3) == 0.0
    assert maj_at_k(["1", "2"], [True, False], 2) == 0.5
    assert maj_at_k([None, None, "1"], [False, False, True], 3) == 1.0
    assert maj_at_k([None, None], [False, False], 2) == 0.0
    # 1/2 and 0.5 both equal the reference, so they are one candidate with two votes.
    assert maj_at_k(["1/2", "0.5", "3", "4"], [True, True, False, False], 4) == 1.0
    # Two blocks of two; the fifth answer fills no block.
    assert maj_at_k(["1", "1", "2", "2", "2"], [True, True, False, False, False], 2) == 0.5


def test_accuracy_by_hand() -> None:
    found = accuracy([1, 0, 1, 1, 0])
    assert found.value == 0.6
    assert found.se == pytest.approx(math.sqrt(0.3 / 5))  # sample variance 0.3
    nested = accuracy([[1, 1], [0, 1], [0, 0]])
    assert nested.value == 0.5
    assert nested.se == pytest.approx(0.5 / math.sqrt(3))  # of the means 1, 0.5, 0


def test_wilson_by_hand() -> None:
    # 8 of 10 at 95 %: the textbook interval 0.490 to 0.943.
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize("right", [0, 1])
def test_interval_at_the_edges_is_not_empty_and_contains_the_value(right: int) -> None:
    found = accuracy([right] * 32)
    assert found.se == 0
    assert found.low <= right <= found.high
    assert found.high - found.low == pytest.approx(0.1072, abs=1e-4)  # z^2 / (32 + z^2)
    # Sixteen clusters of two are worth sixteen questions there, not thirty-two.
    clustered = accuracy([right] * 32, clusters=[i // 2 for i in range(32)])
    assert clustered.high - clustered.low == pytest.approx(0.1936, abs=1e-4)


def test_ungradable_answers_are_left_out_and_counted() -> None:
    found = accuracy([[1, math.nan], [0, 0], [math.nan, math.nan]])
    assert (found.value, found.num_questions, found.num_left_out) == (0.5, 2, 1)
    pair = paired_difference([0, math.nan, 1], [1, 1, 1])
    assert (pair.value, pair.num_questions, pair.num_left_out) == (0.5, 2, 1)
    assert math.isnan(accuracy([]).value)
    assert paired_difference([], []).p_value == 1.0


def test_clustered_error_by_hand_and_for_copies() -> None:
    # Two clusters with totals of deviations +0.5 and -0.5: sqrt(2/1 * 0.5) / 4 = 0.25.
    assert accuracy([1, 0, 1, 1], clusters=["a", "b", "b", "a"]).se == pytest.approx(0.25)
    # Asking every question ten times tells nothing new; the error must not shrink.
    rng = np.random.default_rng(1)
    once = rng.integers(0, 2, 60)
    tenfold = accuracy(np.repeat(once, 10), clusters=np.repeat(np.arange(60), 10).tolist())
    assert tenfold.se == pytest.approx(accuracy(once).se)
    assert accuracy(np.repeat(once, 10)).se < 0.4 * accuracy(once).se


def test_paired_difference_by_hand() -> None:
    # n 100 with 12 gained and 5 lost: Agresti and Min with half a count in each cell.
    before = [0] * 12 + [1] * 5 + [1] * 40 + [0] * 43
    after = [1] * 12 + [0] * 5 + [1] * 40 + [0] * 43
    found = paired_difference(before, after)
    assert (found.value, found.gained, found.lost) == (pytest.approx(0.07), 12, 5)
    centre = 7 / 102
    half = 1.959964 * math.sqrt((12.5 + 5.5 - 0) / 102 - centre**2) / math.sqrt(102)
    assert found.low == pytest.approx(centre - half, abs=2e-3)
    assert found.high == pytest.approx(centre + half, abs=2e-3)
    assert (found.p_value < 0.05) == (found.low > 0)


def test_paired_difference_changes_sign_with_the_order() -> None:
    a, b = [0, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0]
    up, down = paired_difference(a, b), paired_difference(b, a)
    assert up.value == 0.5
    assert (up.low, up.high) == (pytest.approx(-down.high), pytest.approx(-down.low))


def test_equal_models_get_an_interval_round_zero_that_is_not_empty() -> None:
    found = paired_difference([1, 0] * 100, [1, 0] * 100)
    assert found.value == 0
    assert found.p_value == 1
    assert found.high == -found.low > 0.009


def test_seeds_of_one_question_do_not_count_as_questions() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    once = paired_difference(before, after)
    copied = paired_difference(before, np.repeat(after[:, None], 5, axis=1))
    assert copied == once


def test_other_numbers_of_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1, 0], [1, 0, 1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
