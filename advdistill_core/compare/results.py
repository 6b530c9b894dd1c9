"""From the answers of every arm to tables: accuracies, paired differences, Holm.

The unit is the question. Seeds and samples of a question are averaged first, because they are
not independent; a difference takes only the seeds that both arms have.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advdistill_core.evaluation import answers, statistics

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """One arm's answers to one set, with one seed.

    Args:
        seed: None for a model that no seed changes; it stands for every one.
        sampling: `greedy`, or how the answers were sampled.
        correct: (Q, S) 1 correct, 0 not, NaN where nothing is known; the questions of a set
            are in the same order in all outcomes.
        unparsed, truncated, num_answers: counts of answers.
        mean_tokens: of an answer.
    """

    arm: str
    seed: int | None
    set: str
    sampling: str
    correct: NDArray[np.float64]
    unparsed: int
    truncated: int
    num_answers: int
    mean_tokens: float


def outcome_of(arm: str, seed: int | None, name: str, sampling: str, rows: Iterable[Row]) -> Outcome:
    """An outcome from the rows of a scores table."""
    rows = list(rows)
    found = answers.by_question(rows)
    return Outcome(
        arm,
        seed,
        name,
        sampling,
        answers.matrix([found[question] for question in sorted(found)]),
        sum(row["verdict"] == "unparsed" for row in rows),
        sum(row["finish_reason"] == "length" for row in rows),
        len(rows),
        fmean(row["num_tokens"] for row in rows) if rows else math.nan,
    )


def accuracies(outcomes: Sequence[Outcome], confidence: float) -> list[Row]:
    """A row per arm, set and sampling, in the order of the outcomes.

    `of_teacher` is the accuracy as a share of the teacher's, over the seeds that both have;
    `seed_sd` the deviation between seeds in accuracy, which the interval over questions
    does not tell.
    """
    rows = []
    for (arm, name, sampling), members in _grouped(outcomes).items():
        found = statistics.accuracy(_together(members), confidence=confidence)
        by_seed = [float(np.nanmean(o.correct)) for o in members]
        total = sum(o.num_answers for o in members)
        teacher = _grouped(outcomes).get(("teacher", name, sampling), [])
        rows.append(
            {
                "arm": arm,
                "set": name,
                "sampling": sampling,
                "num_seeds": len(members),
                **answers.estimate(found),
                "seed_sd": stdev(by_seed) if len(by_seed) > 1 else None,
                "of_teacher": _ratio(members, teacher),
                "unparsed_frac": sum(o.unparsed for o in members) / max(1, total),
                "truncated_frac": sum(o.truncated for o in members) / max(1, total),
                "mean_tokens": fmean(o.mean_tokens for o in members),
            }
        )
    return rows


def differences(
    outcomes: Sequence[Outcome], reference: str, confidence: float, arms: Sequence[str] | None = None
) -> list[Row]:
    """Each arm minus the reference on the same questions and seeds, with Holm's correction.

    The correction is over the arms of one set and one way of sampling.

    Args:
        arms: the arms that are compared; all but the reference without it.
    """
    grouped = _grouped(outcomes)
    rows: list[Row] = []
    for name, sampling in dict.fromkeys((o.set, o.sampling) for o in outcomes):
        family = []
        for (arm, *place), members in grouped.items():
            chosen = arm != reference and (arms is None or arm in arms)
            if place != [name, sampling] or not chosen:
                continue
            first, second = _common(grouped.get((reference, name, sampling), []), members)
            if first:
                family.append(_difference(arm, reference, first, second, confidence))
        adjusted = statistics.holm([row["p_value"] for row in family])
        rows += [row | {"p_holm": p} for row, p in zip(family, adjusted, strict=True)]
    return rows


def _difference(
    arm: str, reference: str, first: Sequence[Outcome], second: Sequence[Outcome], confidence: float
) -> Row:
    found = statistics.paired_difference(_together(first), _together(second), confidence=confidence)
    by_seed = [
        float(np.nanmean(b.correct)) - float(np.nanmean(a.correct))
        for a, b in zip(first, second, strict=True)
    ]
    return {
        "arm": arm,
        "reference": reference,
        "set": second[0].set,
        "sampling": second[0].sampling,
        "num_seeds": len(second),
        "difference": None if math.isnan(found.value) else found.value,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "num_questions": found.num_questions,
        "gained": found.gained,
        "lost": found.lost,
        "seed_sd": stdev(by_seed) if len(by_seed) > 1 else None,
        "seeds_above": sum(d > 0 for d in by_seed),
    }


def _grouped(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], list[Outcome]]:
    found: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.arm, outcome.set, outcome.sampling), []).append(outcome)
    return found


def _common(first: Sequence[Outcome], second: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Both sides at the seeds that both have."""
    a, b = ({o.seed: o for o in side} for side in (first, second))
    if a.keys() == {None}:
        return [a[None]] * len(b), list(b.values())
    if b.keys() == {None}:
        return list(a.values()), [b[None]] * len(a)
    seeds = [seed for seed in a if seed in b]
    return [a[s] for s in seeds], [b[s] for s in seeds]


def _together(outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """(Q, seeds x samples)."""
    return np.concatenate([o.correct for o in outcomes], axis=1)


def _ratio(members: Sequence[Outcome], teacher: Sequence[Outcome]) -> float | None:
    first, second = _common(teacher, members)
    if not first:
        return None
    whole = float(np.nanmean(_together(first)))
    return float(np.nanmean(_together(second))) / whole if whole else None
