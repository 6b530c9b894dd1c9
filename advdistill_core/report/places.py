"""Every evaluation set and way of sampling, beside the held-out questions; and difficulty."""

from collections.abc import Mapping, Sequence

import numpy as np

from advdistill_core.compare import Outcome, accuracies, differences, outcome_of
from advdistill_core.evaluation import answers, behaviour, statistics
from advdistill_core.report.gather import Row, scores
from advdistill_core.store import Artifact

MODELS = ("before", "after", "teacher")
#: The ordinary answers and the further samples.
ORDINARY, SAMPLES = "answers", "samples"


def places(
    before: Sequence[Row], after: Sequence[Row], inputs: Mapping[str, Artifact], confidence: float
) -> list[Row]:
    """A row per set and way of sampling: each model's accuracy, and after minus before.

    Holm's correction is over these rows.
    """
    found = _outcomes(before, after, inputs)
    shares = {(r["arm"], r["set"], r["sampling"]): r for r in accuracies(found, confidence)}
    changes = differences(found, "before", confidence, ["after"])
    adjusted = statistics.holm([row["p_value"] for row in changes])
    rows = []
    for change, p_holm in zip(changes, adjusted, strict=True):
        place = change["set"], change["sampling"]
        models = {model: shares.get((model, *place)) for model in MODELS}
        after_row = models["after"] or {}
        rows.append(
            {
                "set": place[0],
                "sampling": place[1],
                **{name: change[name] for name in ("difference", "low", "high", "num_questions")},
                "p_holm": p_holm,
                "of_teacher": after_row.get("of_teacher"),
                **{f"{model}_accuracy": row and row["accuracy"] for model, row in models.items()},
                "unparsed_frac": after_row.get("unparsed_frac"),
                "truncated_frac": after_row.get("truncated_frac"),
            }
        )
    return rows


def _outcomes(before: Sequence[Row], after: Sequence[Row], inputs: Mapping[str, Artifact]) -> list[Outcome]:
    found = [
        outcome_of(model, None, "heldout", ORDINARY, rows)
        for model, rows in (("before", before), ("after", after))
        if rows
    ]
    for name, artifact in inputs.items():
        kind, *place = name.split("/")
        if kind == "scores":
            sampling = SAMPLES if len(place) > 2 else ORDINARY
            found.append(outcome_of(place[0], None, place[1], sampling, scores(artifact)))
    return [outcome for outcome in found if len(outcome.correct)]


def by_difficulty(after: Sequence[Row], inputs: Mapping[str, Artifact]) -> list[Row]:
    """The student's accuracy by the teacher's, hardest tenth first; empty if it was not measured."""
    asked = inputs.get("scores/teacher/heldout/samples") or inputs.get("scores/teacher/heldout")
    if asked is None or not after:
        return []
    teacher, student = (_rates(rows) for rows in (scores(asked), after))
    both = [question for question in teacher if question in student]
    bins = behaviour.accuracy_by_difficulty([teacher[q] for q in both], [student[q] for q in both])
    return [{"teacher": t, "student": s, "num_questions": n} for t, s, n in bins]


def _rates(rows: Sequence[Row]) -> dict[str, float]:
    """Share of correct answers of each question with a verdict."""
    grouped = answers.by_question(rows)
    rates = {q: answers.matrix([members]) for q, members in grouped.items()}
    return {q: float(np.nanmean(x)) for q, x in rates.items() if np.isfinite(x).any()}


def standard_tasks(inputs: Mapping[str, Artifact]) -> list[Row]:
    """A row per task and metric of lm-evaluation-harness, before and after."""
    found: dict[tuple[str, str], Row] = {}
    for when in ("before", "after"):
        artifact = inputs.get(f"standard/{when}")
        for row in artifact.manifest.metrics["tasks"] if artifact else []:
            key = row["task"], row["metric"]
            empty = dict.fromkeys(("before", "before_se", "after", "after_se"))
            kept = found.setdefault(key, {"task": key[0], "metric": key[1], **empty})
            kept |= {when: row["value"], f"{when}_se": row["se"]}
    return list(found.values())
