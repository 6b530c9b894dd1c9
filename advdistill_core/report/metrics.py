"""The figures of a run, as written to `metrics.json`.

Values at the top level are what people look at first; the dictionaries below them hold the
detail. Shares are 0 to 1, differences in shares, times in seconds, lengths in tokens. What
cannot be computed is null.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from advdistill_core.evaluation import answers, behaviour, statistics
from advdistill_core.evaluation.behaviour import Response
from advdistill_core.report import overlap, places, wording
from advdistill_core.report.gather import Group, Question, Row
from advdistill_core.rewards.types import UNDECIDED
from advdistill_core.store import Artifact

#: The inputs of the report and what their stages are called in it.
STAGE_LABELS = {
    "prompts": "load",
    "scores_before": "evaluate before",
    "responses": "generate",
    "rewards": "verify",
    "weights": "weigh",
    "student": "train",
    "scores_after": "evaluate after",
    "generated": "generate",
}

#: What a generation's manifest tells of its requests beside tokens and money.
_ACCOUNT = (
    *("new_responses", "resumed_responses", "reused_responses", "reused_tokens", "prompt_tokens"),
    *("finish_reasons", "truncated_frac", "error_frac", "teachers"),
)


def collect(
    groups: Sequence[Group],
    before: Sequence[Row],
    after: Sequence[Row],
    heldout: Mapping[str, Question],
    inputs: Mapping[str, Artifact],
    confidence: float,
) -> dict[str, Any]:
    """All figures of a run."""
    teacher = teacher_figures(groups, confidence)
    pair = paired(before, after, confidence)
    found: dict[str, Any] = {
        "teacher_pass_rate": teacher["pass_rate"]["accuracy"],
        "num_prompts": len(groups),
        "mixed_groups": teacher["groups"]["mixed"],
        "accuracy_before": pair["before"]["accuracy"],
        "accuracy_after": pair["after"]["accuracy"],
        "difference": pair["difference"],
        "difference_low": pair["low"],
        "difference_high": pair["high"],
        "num_questions": pair["num_questions"],
        "num_left_out": pair["num_left_out"],
        "weight_on_correct_frac": inputs["weights"].manifest.metrics.get("weight_on_correct_frac"),
        "effective_sample_size": inputs["weights"].manifest.metrics.get("effective_sample_size"),
        "nothing_to_train": inputs["student"].manifest.metrics.get("nothing_to_train"),
        "teacher": teacher,
        "paired": pair,
        "answers": {"before": answer_counts(before), "after": answer_counts(after)},
        "sets": places.places(before, after, inputs, confidence),
        "likelihood": {
            when: inputs[f"likelihoods/{when}"].manifest.metrics
            for when in ("before", "after")
            if f"likelihoods/{when}" in inputs
        },
        "standard_tasks": places.standard_tasks(inputs),
        "by_difficulty": places.by_difficulty(after, inputs),
        "contamination": overlap.overlap(groups, heldout, inputs),
        "behaviour": behaviours(groups, before, after),
        "stages": stages(inputs),
    }
    return {"headline": wording.headline(found, confidence), **found}


def teacher_figures(groups: Sequence[Group], confidence: float) -> dict[str, Any]:
    """The teacher's responses: pass rate over prompts, kinds of groups, verdicts."""
    estimate = statistics.accuracy(answers.matrix([g.responses for g in groups]), confidence=confidence)
    rows = [r for g in groups for r in g.responses]
    kinds = Counter(g.kind for g in groups)
    return {
        "pass_rate": answers.estimate(estimate),
        "groups": {kind: kinds[kind] for kind in ("mixed", "all_correct", "all_wrong", "ungradable")},
        "k": max((len(g.responses) for g in groups), default=0),
        **answer_counts(rows),
        "trained": sum(r["weight"] > 0 and r["merged_into"] is None for r in rows),
        "merged": sum(r["merged_into"] is not None for r in rows),
    }


def answer_counts(rows: Sequence[Row]) -> dict[str, Any]:
    """How answers ended, whoever wrote them."""
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "num_responses": len(rows),
        "verdicts": dict(sorted(verdicts.items())),
        "unparsed": verdicts["unparsed"],
        "undecided": sum(verdicts[v] for v in UNDECIDED),
        "truncated": sum(row["finish_reason"] == "length" for row in rows),
        "tokens": sum(row["num_tokens"] for row in rows),
    }


def paired(before: Sequence[Row], after: Sequence[Row], confidence: float) -> dict[str, Any]:
    """Accuracy before and after, and the difference on the same questions."""
    by_model = [answers.by_question(before), answers.by_question(after)]
    ids = [q for q in by_model[0] if q in by_model[1]]
    x_before, x_after = (answers.matrix([rows[q] for q in ids]) for rows in by_model)
    found = statistics.paired_difference(x_before, x_after, confidence=confidence)
    return {
        **{
            side: answers.estimate(statistics.accuracy(x_QS, confidence=confidence))
            | answers.at_k([rows[q] for q in ids])
            for side, x_QS, rows in zip(("before", "after"), (x_before, x_after), by_model, strict=True)
        },
        "difference": _or_none(found.value),
        "se": _or_none(found.se),
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "gained": found.gained,
        "lost": found.lost,
        "num_questions": found.num_questions,
        "num_left_out": found.num_left_out,
        "outcomes": outcomes([by_model[0][q] for q in ids], [by_model[1][q] for q in ids]),
    }


def outcomes(before: Sequence[Sequence[Row]], after: Sequence[Sequence[Row]]) -> dict[str, int]:
    """Questions by what became of them; several samples count as right when most are."""
    counts = dict.fromkeys(("both_right", "gained", "lost", "both_wrong", "left_out"), 0)
    for first, second in zip(before, after, strict=True):
        counts[outcome(first, second)] += 1
    return counts


def outcome(before: Sequence[Row], after: Sequence[Row]) -> str:
    """What became of one question: both_right, gained, lost, both_wrong or left_out."""
    right = []
    for rows in (before, after):
        decided = [row["verdict"] == "correct" for row in rows if row["verdict"] not in UNDECIDED]
        if not decided:
            return "left_out"
        right.append(2 * sum(decided) > len(decided))
    return {
        (True, True): "both_right",
        (False, True): "gained",
        (True, False): "lost",
        (False, False): "both_wrong",
    }[right[0], right[1]]


def behaviours(groups: Sequence[Group], before: Sequence[Row], after: Sequence[Row]) -> dict[str, Any]:
    """How responses look: the teacher's (alone and within groups), the student's before and after."""
    by_prompt = [_responses(g.responses, "prompt_id") for g in groups]
    rows = [r for g in groups for r in g.responses if r["format"] is not None]
    rates: dict[str, float | None] = {
        f"{part}_rate": sum(r[part] for r in rows) / len(rows) if rows else None
        for part in ("format", "tags")
    }
    return {
        "teacher": behaviour.describe([r for g in by_prompt for r in g]) | rates,
        "teacher_groups": behaviour.describe_groups(by_prompt),
        "before": behaviour.describe(_responses(before, "question_id")),
        "after": behaviour.describe(_responses(after, "question_id")),
    }


def _responses(rows: Iterable[Row], key: str) -> list[Response]:
    return [
        Response(
            r[key], r["text"], r["num_tokens"], r["verdict"], r["extracted"], r["finish_reason"] == "length"
        )
        for r in rows
    ]


def labelled(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The inputs by what their stages are called in the run, in the order of the pipeline."""
    names = dict(STAGE_LABELS)
    if "loaded" in inputs:
        names = {"loaded": "load"} | names | {"prompts": "gate prompts", "responses": "gate responses"}
    ordered = ["loaded", "prompts", "scores_before", "generated", "responses", *names]
    found = {names[name]: inputs[name] for name in dict.fromkeys(ordered) if name in inputs and name in names}
    for name, artifact in inputs.items():
        kind, *place = name.split("/")
        if kind == "likelihoods":
            found[f"likelihood {place[0]}"] = artifact
        if kind == "standard":
            found[f"evaluate {place[0]} standard tasks"] = artifact
        if kind == "scores":
            found[" ".join(["evaluate", place[0], *(p for p in place[1:] if p != "heldout")])] = artifact
    return found


def stages(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Rows, time and tokens of each stage, as its manifest has them."""
    found = {}
    for label, artifact in labelled(inputs).items():
        manifest = artifact.manifest
        found[label] = {
            "rows": manifest.rows,
            "seconds": manifest.seconds,
            "outcome": manifest.outcome,
            "tokens": manifest.tokens,
            "cost": manifest.metrics.get("cost"),
            "account": {name: manifest.metrics[name] for name in _ACCOUNT if name in manifest.metrics},
            "size_bytes": sum(part.size_bytes for part in manifest.parts),
            "fingerprint": manifest.fingerprint,
            "code_version": manifest.code_version,
        }
    return found


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
