"""Rows of the scores table as the arrays that the statistics take."""

import math
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advdistill_core.evaluation.statistics import Estimate, maj_at_k, pass_at_k
from advdistill_core.rewards.types import UNDECIDED

Row = dict[str, Any]


def by_question(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each question, in the order of the table."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["question_id"], []).append(row)
    return found


def matrix(questions: Collection[Sequence[Row]]) -> NDArray[np.float64]:
    """(Q, S) of 1 correct, 0 not, NaN where nothing is known or there is no such sample."""
    width = max((len(rows) for rows in questions), default=1)
    x_QS = np.full((len(questions), width), np.nan)
    for q, rows in enumerate(questions):
        for s, row in enumerate(rows):
            if row["verdict"] not in UNDECIDED:
                x_QS[q, s] = row["verdict"] == "correct"
    return x_QS


def estimate(found: Estimate) -> dict[str, Any]:
    """An estimate as JSON values."""
    return {
        "accuracy": None if math.isnan(found.value) else found.value,
        "accuracy_se": None if math.isnan(found.se) else found.se,
        "accuracy_low": found.low,
        "accuracy_high": found.high,
        "num_questions": found.num_questions,
        "num_left_out": found.num_left_out,
    }


def at_k(questions: Collection[Sequence[Row]]) -> dict[str, dict[str, float]]:
    """pass@k and maj@k for k = 1, 2, 4, ... and all n samples, averaged over questions.

    Only answers with a verdict count; a question with fewer than k of them is left out of that
    k. Empty for one sample a question, where all of them are the accuracy.
    """
    known = [[row for row in rows if row["verdict"] not in UNDECIDED] for rows in questions]
    most = max((len(rows) for rows in known), default=0)
    if most < 2:
        return {}
    found: dict[str, dict[str, float]] = {"pass_at": {}, "maj_at": {}}
    for k in sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most}):
        enough = [rows for rows in known if len(rows) >= k]
        right = [[row["verdict"] == "correct" for row in rows] for rows in enough]
        found["pass_at"][str(k)] = fmean(pass_at_k(len(r), sum(r), k) for r in right)
        found["maj_at"][str(k)] = fmean(
            maj_at_k([row["extracted"] for row in rows], r, k) for rows, r in zip(enough, right, strict=True)
        )
    return found
