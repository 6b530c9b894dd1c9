"""Behaviour metrics against values counted by hand."""

import pytest

from advdistill_core.evaluation import behaviour
from advdistill_core.evaluation.behaviour import Response
from advdistill_core.rewards import parts


def response(
    text: str = "",
    num_tokens: int = 1,
    verdict: str = "correct",
    extracted: str | None = None,
    group: str = "p",
) -> Response:
    return Response(group, text, num_tokens, verdict, extracted, truncated=False)


def test_reflections() -> None:
    assert behaviour.count_reflections("Wait, let me check. Actually it waits; double-check.") == 4


def test_steps_and_equations_are_those_of_the_rewards() -> None:
    text = "1. 2 + 3 + 4 = 9\n2. 10 / 3 = 3.33\nThen $1,200 * 2 = $2,500"
    found = behaviour.describe([response(text)])
    assert found["steps_mean"] == 3 == 3 * parts.step_share(text)
    assert found["equations_valid_frac"] == parts.equation_share(text) == pytest.approx(2 / 3)


def test_distinct_n() -> None:
    assert behaviour.distinct_n(["a b a", "a b"], 1) == pytest.approx(2 / 5)
    assert behaviour.distinct_n(["a b a", "a b"], 2) == pytest.approx(2 / 3)
    assert behaviour.distinct_n(["a"], 2) is None


def test_self_bleu() -> None:
    assert behaviour.self_bleu(["a b c d e"] * 3) == pytest.approx(1)
    assert behaviour.self_bleu(["a b c d", "e f g h"]) == 0
    assert behaviour.self_bleu(["a"]) is None
    # "a b c" against "a b d": 2/3, then (1+1)/(2+1), (0+1)/(1+1), (0+1)/(0+1) by smoothing.
    expected = (2 / 3 * 2 / 3 * 1 / 2 * 1) ** 0.25
    assert behaviour.self_bleu(["a b c", "a b d"]) == pytest.approx(expected)


def test_entropy_of_answers() -> None:
    assert behaviour.answer_entropy(["1", "1", "2", None]) == pytest.approx(1.5)
    assert behaviour.answer_entropy(["1", "1"]) == 0


def test_majority_calibration() -> None:
    sure_and_right = [response(extracted="1") for _ in range(4)]
    half_and_wrong = [response(extracted="1", verdict="wrong")] * 2 + [response(extracted="2"), response()]
    ece, brier = behaviour.majority_calibration([sure_and_right, half_and_wrong])
    assert ece == pytest.approx((0 + 0.5) / 2)
    assert brier == pytest.approx((0 + 0.25) / 2)
    assert behaviour.majority_calibration([[response(extracted=None)]]) == (None, None)


def test_accuracy_by_difficulty_puts_the_hardest_first() -> None:
    bins = behaviour.accuracy_by_difficulty([0.9, 0.1, 0.5, 0.0], [1, 0, 1, 0.5], num_bins=2)
    assert bins == [(pytest.approx(0.05), 0.25, 2), (pytest.approx(0.7), 1.0, 2)]
    assert behaviour.accuracy_by_difficulty([0.5], [1.0]) == [(0.5, 1.0, 1)]


def test_likelihood_gap() -> None:
    gap = behaviour.likelihood_gap([-1.0, -2.0, -4.0], [True, False, False])
    assert gap == {"logprob_correct": -1.0, "logprob_wrong": -3.0, "logprob_gap": 2.0}


def test_describe_keeps_right_and_wrong_lengths_apart() -> None:
    found = behaviour.describe(
        [
            response("1 + 1 = 2", 10),
            response("wait", 30, "wrong"),
            response("", 50, "unparsed"),
            response("", 90, "timeout"),
        ]
    )
    assert found["tokens_mean"] == 45
    assert found["tokens_median"] == 40
    assert found["tokens_p95"] == 90
    assert found["tokens_mean_correct"] == 10
    assert found["tokens_mean_wrong"] == 40
    assert found["unparsed_frac"] == 0.25
    assert found["equations_valid_frac"] == 1
    assert found["reflections_per_1k_tokens"] == pytest.approx(1000 / 180)


def test_nothing_to_describe_is_none_and_not_zero() -> None:
    found = behaviour.describe([])
    assert found["num_responses"] == 0
    assert {v for k, v in found.items() if k != "num_responses"} == {None}
    assert behaviour.describe_groups([])["self_bleu_4"] is None


def test_describe_groups() -> None:
    same = [response("a b c d", extracted="1")] * 2
    differ = [response("a b c d", extracted="1"), response("1 + 1 = 2", extracted="2")]
    found = behaviour.describe_groups([same, differ])
    assert found["distinct_texts"] == 1.5
    assert found["distinct_answers"] == 1.5
    assert found["distinct_equation_lists"] == 1.5
    assert found["answer_entropy_bits"] == 0.5
