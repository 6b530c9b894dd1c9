"""Where graders disagree: a table to look at.

A verifier's false negatives cannot be seen in its own verdicts. This puts a sample of them
beside those of independent graders: math-verify on the whole response (for `math`), and a
judge model if one is given.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from advdistill_core.rewards.grader import Grader
from advdistill_core.rewards.types import Answer, Graded

#: Asked for a batch of answers, says for each whether it is `correct`, `wrong` or something
#: else (which counts as no opinion).
JudgeModel = Callable[[Sequence[Answer]], Sequence[str]]

_SHOWN_CHARS = 160


class Case(NamedTuple):
    """An answer with its verdict here."""

    id: str
    answer: Answer
    graded: Graded


def disagreements(
    cases: Sequence[Case],
    grader: Grader,
    sample: int = 1000,
    seed: int = 0,
    judge_model: JudgeModel | None = None,
) -> list[dict[str, Any]]:
    """Sample cases, ask the other graders, keep those that somebody sees differently.

    Args:
        sample: how many cases to look at, drawn without replacement.

    Returns:
        A row for each disagreement: id, task, gold, extracted, verdict, `second` (the
        independent grader's), `judge` (the model's) and the end of the response.
    """
    drawn = sorted(random.Random(seed).sample(range(len(cases)), min(sample, len(cases))))
    chosen = [cases[index] for index in drawn]
    second = grader.second_opinions([case.answer for case in chosen])
    judged = (
        list(judge_model([case.answer for case in chosen])) if judge_model and chosen else [""] * len(chosen)
    )
    rows = []
    for case, other, said in zip(chosen, second, judged, strict=True):
        ours = case.graded.verdict == "correct"
        differs = other is not None and (other.verdict == "correct") != ours
        if differs or (said in ("correct", "wrong") and (said == "correct") != ours):
            rows.append(
                {
                    "id": case.id,
                    "task": case.answer.task,
                    "gold": case.answer.reference[:_SHOWN_CHARS],
                    "extracted": (case.graded.extracted or "")[:_SHOWN_CHARS],
                    "verdict": case.graded.verdict,
                    "second": other.verdict if other else "",
                    "judge": said,
                    "ending": case.answer.text[-_SHOWN_CHARS:],
                }
            )
    return rows
