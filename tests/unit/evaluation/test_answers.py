"""Rows of scores as arrays and as pass@k."""

from typing import Any

import numpy as np
import pytest

from advdistill_core.evaluation import answers


def rows(letters: str, extracted: str = "") -> list[dict[str, Any]]:
    verdicts = {"c": "correct", "w": "wrong", "u": "unparsed", "t": "timeout", "e": "error"}
    return [
        {"question_id": "q", "verdict": verdicts[v], "extracted": a}
        for v, a in zip(letters, extracted or letters, strict=True)
    ]


def test_matrix_knows_nothing_of_what_was_not_graded() -> None:
    x = answers.matrix([rows("cwt"), rows("u"), rows("e")])
    expected = [[1, 0, np.nan], [0, np.nan, np.nan], [np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(x, expected)


def test_at_k_averages_over_questions() -> None:
    found = answers.at_k([rows("ccww"), rows("wwww", "xxyz")])
    # pass@2 of 2 correct in 4: 1 - 1/6; maj@4: a tie of the correct and one wrong answer.
    assert found["pass_at"] == {"1": 0.25, "2": pytest.approx(5 / 12), "4": 0.5}
    assert found["maj_at"]["4"] == pytest.approx(0.25)
    assert list(found["maj_at"]) == ["1", "2", "4"]


def test_at_k_leaves_out_questions_with_too_few_verdicts() -> None:
    found = answers.at_k([rows("cw"), rows("ct")])
    assert found["pass_at"] == {"1": 0.75, "2": 1.0}
    assert answers.at_k([rows("c"), rows("w")]) == {}
    assert answers.at_k([]) == {}
