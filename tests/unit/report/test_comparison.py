"""What the comparison says in words and numbers."""

import csv
import io

import numpy as np
from report_fixture import CONFIG

from advdistill_core.compare import Outcome
from advdistill_core.report import comparison


def outcomes(shares: dict[str, float]) -> list[Outcome]:
    """Two seeds of 200 questions, of which the first so many are right."""
    found = []
    for arm, share in shares.items():
        for seed in (0, 1):
            right = (np.arange(200) < 200 * share).astype(float)[:, None]
            found.append(Outcome(arm, seed, "heldout", comparison.GREEDY, right, 0, 0, 200, 5.0))
    return found


def test_the_headline_names_who_beats_whom() -> None:
    shares = {"advdistill": 0.5, "sft-1": 0.3, "sft-all": 0.49, "rft": 0.7}
    found = comparison.compared(outcomes(shares), {}, "advdistill", 0.95)
    assert found["headline"] == (
        "On the held-out questions: AdvDistill as configured beats sft-1; "
        "rft beats AdvDistill as configured; "
        "1 of 3 other arms are not told apart from AdvDistill as configured."
    )


def test_models_that_were_not_trained_are_no_arms_to_beat() -> None:
    found = comparison.compared(outcomes({"advdistill": 0.5, "teacher": 0.9}), {}, "advdistill", 0.95)
    assert found["headline"] == "On the held-out questions: no other arm was trained."
    assert {row["arm"]: row["of_teacher"] for row in found["table"]} == {
        "advdistill": 0.5 / 0.9,
        "teacher": 1.0,
    }


def test_the_table_is_the_same_as_csv_and_on_the_page() -> None:
    found = comparison.compared(
        outcomes({"advdistill": 0.5, "rft": 0.7}), {"rft": {"steps": 9, "tokens": 1234}}, "advdistill", 0.95
    )
    rows = list(csv.DictReader(io.StringIO(comparison.as_csv(found["table"]))))
    assert [(row["arm"], float(row["accuracy"])) for row in rows] == [("advdistill", 0.5), ("rft", 0.7)]
    assert (rows[1]["steps"], rows[1]["tokens"]) == ("9", "1234")
    page = comparison.render(CONFIG, found)
    assert "70.0\u00a0%" in page
    assert "+20.0" in page
