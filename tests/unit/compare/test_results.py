"""Tables of a comparison against the statistics they are made of."""

from typing import Any

import numpy as np
import pytest

from advdistill_core.compare import Outcome, accuracies, differences, outcome_of
from advdistill_core.evaluation.statistics import holm, paired_difference


def outcome(arm: str, seed: int | None, right: list[float], name: str = "heldout") -> Outcome:
    return Outcome(arm, seed, name, "greedy", np.array(right)[:, None], 1, 2, len(right), 10.0)


R = np.random.default_rng(0)
RIGHT = {arm: R.integers(0, 2, (3, 200)).astype(float) for arm in ("a", "b", "c")}
ALL = [outcome(arm, seed, list(x)) for arm, by_seed in RIGHT.items() for seed, x in enumerate(by_seed)]
TEACHER = outcome("teacher", None, [1.0] * 100 + [0.0] * 100)


def test_seeds_of_a_question_are_averaged_before_the_interval() -> None:
    (row, *_) = differences(ALL, "a", 0.95, ["b"])
    expected = paired_difference(RIGHT["a"].T, RIGHT["b"].T)
    assert (row["difference"], row["low"], row["high"]) == (expected.value, expected.low, expected.high)
    assert row["num_questions"] == 200  # not 600
    by_seed = RIGHT["b"].mean(1) - RIGHT["a"].mean(1)
    assert row["seeds_above"] == (by_seed > 0).sum()
    assert row["seed_sd"] == pytest.approx(by_seed.std(ddof=1))


def test_holm_is_over_the_arms_of_a_set() -> None:
    rows = differences([*ALL, TEACHER], "a", 0.95)
    assert [row["arm"] for row in rows] == ["b", "c", "teacher"]
    assert [row["p_holm"] for row in rows] == holm([row["p_value"] for row in rows])
    elsewhere = [outcome(arm, 0, list(RIGHT[arm][0]), "other") for arm in ("a", "b")]
    (alone,) = [row for row in differences([*ALL, *elsewhere], "a", 0.95) if row["set"] == "other"]
    assert alone["p_holm"] == alone["p_value"]


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    partial = [o for o in ALL if o.arm == "a" or o.seed != 1]
    row = differences(partial, "a", 0.95, ["b"])[0]
    expected = paired_difference(RIGHT["a"][[0, 2]].T, RIGHT["b"][[0, 2]].T)
    assert (row["num_seeds"], row["difference"]) == (2, expected.value)


def test_a_model_that_no_seed_changes_stands_for_every_seed() -> None:
    row = differences([*ALL, TEACHER], "a", 0.95, ["teacher"])[0]
    assert row["num_seeds"] == 3
    assert row["difference"] == pytest.approx(0.5 - RIGHT["a"].mean())
    shares = {r["arm"]: r for r in accuracies([*ALL, TEACHER], 0.95)}
    assert shares["a"]["of_teacher"] == pytest.approx(RIGHT["a"].mean() / 0.5)
    assert shares["teacher"]["of_teacher"] == 1.0


def test_counts_stand_beside_every_accuracy() -> None:
    (row,) = [r for r in accuracies(ALL, 0.95) if r["arm"] == "b"]
    assert (row["num_seeds"], row["num_questions"]) == (3, 200)
    assert (row["unparsed_frac"], row["truncated_frac"]) == (1 / 200, 2 / 200)


def test_questions_are_in_one_order_whatever_the_tables_have() -> None:
    def row(question: str, sample: int, verdict: str) -> dict[str, Any]:
        return {
            "question_id": question,
            "sample_id": sample,
            "verdict": verdict,
            "finish_reason": "length" if verdict == "unparsed" else "stop",
            "num_tokens": 4,
        }

    rows = [row("q2", 0, "correct"), row("q1", 0, "wrong"), row("q1", 1, "unparsed"), row("q2", 1, "error")]
    found = outcome_of("a", 0, "s", "greedy", rows)
    assert np.array_equal(found.correct, [[0.0, 0.0], [1.0, np.nan]], equal_nan=True)
    assert (found.unparsed, found.truncated, found.num_answers) == (1, 1, 4)
