"""The headline says what the figures say, and no more."""

from typing import Any

import pytest

from advdistill_core.report import wording


def metrics(before: float, after: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    return {
        "num_questions": 200,
        "accuracy_before": before,
        "accuracy_after": after,
        "difference": after - before,
        "difference_low": low,
        "difference_high": high,
        "num_left_out": 0,
        "teacher_pass_rate": 0.3,
        "nothing_to_train": None,
        "mixed_groups": 10,
        "contamination": {"num_questions": 0},
        **changes,
    }


def headline(*args: Any, **changes: Any) -> str:
    return wording.headline(metrics(*args, **changes), 0.95).replace("\u00a0", " ")


def caveats(*args: Any, **changes: Any) -> str:
    return " ".join(wording.caveats(metrics(*args, **changes))).replace("\u00a0", " ")


def test_a_gain() -> None:
    assert headline(0.12, 0.345, 0.161, 0.287) == (
        "The student answers 34.5 % of 200 held-out questions correctly after training, 12.0 % before: "
        "22.5 points more (95 % interval +16.1 to +28.7 points)."
    )
    assert caveats(0.12, 0.345, 0.161, 0.287) == ""


def test_a_loss_is_called_one() -> None:
    assert "10.0 points fewer (95 % interval −14.0 to −6.0 points)" in headline(0.3, 0.2, -0.14, -0.06)
    assert "made the student worse" in caveats(0.3, 0.2, -0.14, -0.06)


@pytest.mark.parametrize(("low", "high"), [(-0.02, 0.08), (0.0, 0.1), (-0.1, 0.0)])
def test_an_interval_with_0_shows_no_difference(low: float, high: float) -> None:
    assert "no difference is shown" in caveats(0.3, 0.33, low, high)


def test_floor_and_ceiling_are_named() -> None:
    assert "at the floor" in caveats(0.0, 0.05, -0.01, 0.06)
    assert "at the floor" not in caveats(0.0, 0.06, -0.01, 0.06)
    assert "at the ceiling" in caveats(0.95, 0.99, -0.01, 0.06)


def test_what_makes_a_run_say_little_is_told() -> None:
    assert "little to distil" in caveats(0.3, 0.33, 0.01, 0.05, teacher_pass_rate=0.03)
    assert "nothing to tell apart" in caveats(0.3, 0.33, 0.01, 0.05, mixed_groups=0)
    assert "7 held-out questions are repeated" in caveats(
        0.3, 0.33, 0.01, 0.05, contamination={"num_questions": 7}
    )
    assert "1 held-out question is repeated" in caveats(
        0.3, 0.33, 0.01, 0.05, contamination={"num_questions": 1}
    )
    assert "1 question could not be graded in both evaluations and is left out" in caveats(
        0.3, 0.33, 0.01, 0.05, num_left_out=1
    )
    assert "4 questions could not be graded in both evaluations and are left out" in caveats(
        0.3, 0.33, 0.01, 0.05, num_left_out=4
    )


@pytest.mark.parametrize("num_questions", [0, 200])
def test_a_student_that_was_not_trained(num_questions: int) -> None:
    changes = {"nothing_to_train": "nothing to train on: all wrong.", "num_questions": num_questions}
    assert headline(0.3, 0.3, -0.1, 0.1, **changes) == "The student was not trained: all wrong."
    said = caveats(0.3, 0.3, -0.1, 0.1, **changes)
    assert ("the same student" in said) == bool(num_questions)
    assert "no difference is shown" not in said


def test_nothing_evaluated() -> None:
    assert "nothing is known" in headline(0.0, 0.0, -1.0, 1.0, num_questions=0)
    assert "floor" not in caveats(0.0, 0.0, -1.0, 1.0, num_questions=0)


def test_figures_in_words() -> None:
    assert wording.points(0.0) == wording.points(-0.0004) == "0.0"
    assert wording.points(-0.0123) == "−1.2"
    assert wording.points(0.004) == "+0.4"
    assert wording.percent(None) == wording.number(None) == "–"
    assert wording.number(1234567) == "1\u202f234\u202f567"
    assert wording.number(0.012345) == "0.0123"
    assert wording.duration(3.21) == "3.2 s"
    assert wording.duration(100) == "100 s"
    assert wording.duration(725) == "12 min 05 s"
    assert wording.duration(7260) == "2 h 01 min"
