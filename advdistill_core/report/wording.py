"""Figures in words: what a reader should take away, said plainly and never too strongly."""

from collections.abc import Mapping
from typing import Any

#: At or below this accuracy a model answers by luck; nothing can be compared there.
FLOOR = 0.05
CEILING = 0.95
#: What the training stage begins its reason with.
_NOTHING = "nothing to train on: "


def percent(share: float | None, digits: int = 1) -> str:
    """A share as `12.3 %`, never broken over two lines; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%".replace("-", "−")


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    if difference is None:
        return "–"
    return f"{100 * difference:+.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def number(value: float | int | None, digits: int = 3) -> str:
    """A count with thin thousands, or a figure with so many significant digits."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    text = f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")
    return text.replace("-", "−")


def counted(count: int, thing: str) -> str:
    """A count with what is counted, which takes an s for more than one."""
    return f"{number(count)} {thing}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def headline(metrics: Mapping[str, Any], confidence: float) -> str:
    """The result in one sentence, with its interval; of a student that was not trained, why not."""
    if metrics["nothing_to_train"]:
        return f"The student was not trained: {metrics['nothing_to_train'].removeprefix(_NOTHING)}"
    if not metrics["num_questions"]:
        return "No held-out question was evaluated, so nothing is known about the student."
    change = metrics["difference"]
    direction = "more" if change > 0 else "fewer"
    size = "no change" if change == 0 else f"{abs(100 * change):.1f} points {direction}"
    return (
        f"The student answers {percent(metrics['accuracy_after'])} of "
        f"{counted(metrics['num_questions'], 'held-out question')} correctly after training, "
        f"{percent(metrics['accuracy_before'])} before: {size} "
        f"({100 * confidence:g}\u00a0% interval {points(metrics['difference_low'])} to "
        f"{points(metrics['difference_high'])} points)."
    )


def caveats(metrics: Mapping[str, Any]) -> list[str]:
    """What the headline alone would hide, the most important first."""
    found = []
    if metrics["num_questions"]:
        if metrics["nothing_to_train"]:
            found.append("Before and after are the same student.")
        elif metrics["difference_low"] <= 0 <= metrics["difference_high"]:
            found.append("The interval contains 0: on these questions no difference is shown.")
        elif metrics["difference"] < 0:
            found.append("The whole interval is below 0: training made the student worse on these questions.")
        best = max(metrics["accuracy_before"], metrics["accuracy_after"])
        worst = min(metrics["accuracy_before"], metrics["accuracy_after"])
        if best <= FLOOR:
            found.append(
                f"The student is at the floor (at most {percent(FLOOR, 0)} correct before and after): "
                "questions this hard for it say nothing about the method."
            )
        elif worst >= CEILING:
            found.append(
                f"The student is at the ceiling (at least {percent(CEILING, 0)} correct before and after)."
            )
    rate = metrics["teacher_pass_rate"]
    if rate is not None and rate <= FLOOR:
        found.append(
            f"The teacher is right in only {percent(rate)} of its responses: there is little to distil."
        )
    if not metrics["mixed_groups"]:
        found.append(
            "No prompt has both right and wrong responses, so the advantages had nothing to tell apart."
        )
    repeated = metrics["contamination"]["num_questions"]
    if repeated:
        found.append(
            f"{counted(repeated, 'held-out question')} {'is' if repeated == 1 else 'are'} repeated in "
            "training prompts or responses; see Contamination."
        )
    left_out = metrics["num_left_out"]
    if left_out:
        found.append(
            f"{counted(left_out, 'question')} could not be graded in both evaluations and "
            f"{'is' if left_out == 1 else 'are'} left out."
        )
    return found
