"""Intervals must cover and tests must err as often as they say, whatever made the answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advdistill_core.evaluation.statistics import accuracy, holm, maj_at_k, paired_difference, pass_at_k

EVALUATIONS = 2000


@pytest.mark.parametrize(
    ("num_questions", "a", "b", "num_samples"),
    [(200, 2, 3, 1), (200, 2, 3, 8), (200, 0.3, 9, 4), (1319, 5, 3, 1), (100, 1, 30, 1)],
)
def test_accuracy_covers_over_simulated_evaluations(
    num_questions: int, a: float, b: float, num_samples: int
) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(EVALUATIONS):
        p_Q = rng.beta(a, b, num_questions)
        found = accuracy(rng.random((num_questions, num_samples)) < p_Q[:, None])
        covered += found.low <= a / (a + b) <= found.high
    assert 0.93 <= covered / EVALUATIONS <= 0.97


def test_clustered_accuracy_covers_where_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(60), 5)
    covered = plain = 0
    for _ in range(EVALUATIONS):
        answers = rng.random(300) < rng.beta(1, 1.5, 60)[labels]
        found, naive = accuracy(answers, labels.tolist()), accuracy(answers)
        covered += found.low <= 0.4 <= found.high
        plain += naive.low <= 0.4 <= naive.high
    assert 0.93 <= covered / EVALUATIONS <= 0.97
    assert plain / EVALUATIONS < 0.85


@pytest.mark.parametrize(
    ("num_questions", "base", "up", "down"),
    [(1319, 0.7, 0.1, 0.07), (200, 0.3, 0.15, 0.1), (200, 0.1, 0.3, 0)],
)
def test_paired_difference_covers(num_questions: int, base: float, up: float, down: float) -> None:
    rng = np.random.default_rng(0)
    truth = (1 - base) * up - base * down
    covered = 0
    for _ in range(EVALUATIONS):
        before = rng.random(num_questions) < base
        after = np.where(before, rng.random(num_questions) >= down, rng.random(num_questions) < up)
        found = paired_difference(before, after)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / EVALUATIONS <= 0.97


@pytest.mark.parametrize("num_samples", [1, 8])
def test_false_positives_of_the_paired_test_come_at_the_nominal_rate(num_samples: int) -> None:
    """Two models of equal strength on questions of unequal difficulty."""
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(EVALUATIONS):
        p_Q1 = rng.beta(1.2, 1.8, 400)[:, None]
        first, second = (rng.random((400, num_samples)) < p_Q1 for _ in range(2))
        rejected += paired_difference(first, second).p_value < 0.05
    assert 0.035 <= rejected / EVALUATIONS <= 0.065


def test_the_paired_test_stays_below_its_level_when_few_questions_differ() -> None:
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(EVALUATIONS):
        change = rng.choice([-1, 0, 1], 200, p=[0.01, 0.98, 0.01])
        before = np.full(200, 0.5)
        rejected += paired_difference(before - change / 2, before + change / 2).p_value < 0.05
    assert rejected / EVALUATIONS <= 0.05


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    false_alarms = sum(min(holm(p.tolist())) < 0.05 for p in rng.random((EVALUATIONS, 6)))
    assert 0.035 <= false_alarms / EVALUATIONS <= 0.065


answers = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=30)


@given(answers, st.randoms(use_true_random=False))
def test_order_of_questions_and_samples_plays_no_role(rows: list[list[bool]], random: object) -> None:
    found = accuracy(rows)
    shuffled = [random.sample(row, len(row)) for row in random.sample(rows, len(rows))]  # type: ignore[attr-defined]
    again = accuracy(shuffled)
    assert again.value == pytest.approx(found.value)
    assert (again.low, again.high) == (pytest.approx(found.low), pytest.approx(found.high))
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


@given(st.integers(1, 40), st.data())
def test_pass_at_k_grows_with_k_and_with_correct_answers(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    here = pass_at_k(n, c, k)
    assert 0 <= here <= 1
    assert k == n or here <= pass_at_k(n, c, k + 1) + 1e-12
    assert c == n or here <= pass_at_k(n, c + 1, k) + 1e-12


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=9), st.randoms())
def test_majority_of_one_block_does_not_depend_on_order(votes: list[str | None], random: object) -> None:
    shuffled = random.sample(votes, len(votes))  # type: ignore[attr-defined]
    k = len(votes)
    assert maj_at_k(votes, [v == "1" for v in votes], k) == maj_at_k(
        shuffled, [v == "1" for v in shuffled], k
    )
