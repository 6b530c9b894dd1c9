"""The report's tables, as rows of text."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

from advdistill_core.config import DistillConfig
from advdistill_core.report.wording import counted, duration, number, percent, points

Rows = list[Sequence[str]]

_PACKAGES = (
    "advdistill",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "vllm",
    "math-verify",
    "reasoning-gym",
    "datasets",
    "numpy",
    "pyarrow",
    "prefect",
    "plotly",
)
#: Figures of `behaviour.describe` in the report's words; shares are shown in per cent.
_BEHAVIOUR = {
    "tokens_mean": "Tokens, mean",
    "tokens_median": "Tokens, median",
    "tokens_p95": "Tokens, 95th percentile",
    "tokens_mean_correct": "Tokens where correct, mean",
    "tokens_mean_wrong": "Tokens where wrong, mean",
    "truncated_frac": "Cut at the token limit",
    "unparsed_frac": "No answer found",
    "format_rate": "Required structure",
    "tags_rate": "Tags (mean share)",
    "steps_mean": "Steps per response",
    "equations_per_response": "Equations per response",
    "equations_valid_frac": "Equations that hold",
    "reflections_per_1k_tokens": "Reflection words per 1,000 tokens",
    "repetition_frac": "Repeated 3-grams",
    "distinct_1": "Distinct words",
    "distinct_2": "Distinct 2-grams",
    "distinct_3": "Distinct 3-grams",
}
_GROUP_BEHAVIOUR = {
    "self_bleu_4": "Self-BLEU-4 (1: all alike)",
    "distinct_texts": "Distinct texts per prompt",
    "distinct_equation_lists": "Distinct equation lists per prompt",
    "distinct_answers": "Distinct answers per prompt",
    "answer_entropy_bits": "Entropy of the answers, bits",
    "majority_ece": "Calibration error of the majority's share",
    "majority_brier": "Brier score of the majority's share",
}
_SHARES = ("_frac", "_rate")


def tiles(metrics: Mapping[str, Any], confidence: float) -> list[dict[str, str]]:
    """The figures that are read first."""
    level = f"{100 * confidence:g} %"
    pass_rate = metrics["teacher"]["pass_rate"]
    found = [
        {
            "label": "Teacher pass rate",
            "value": percent(pass_rate["accuracy"]),
            "note": _span(pass_rate, level),
        },
        {
            "label": "Mixed groups",
            "value": number(metrics["mixed_groups"]),
            "note": f"of {number(metrics['num_prompts'])} prompts",
        },
    ]
    for name in ("before", "after"):
        side = metrics["paired"][name]
        found.append(
            {"label": f"Student {name}", "value": percent(side["accuracy"]), "note": _span(side, level)}
        )
    if metrics["num_questions"]:
        note = f"{level}: {points(metrics['difference_low'])} to {points(metrics['difference_high'])}"
        found.append(
            {"label": "Paired difference", "value": f"{points(metrics['difference'])} pts", "note": note}
        )
    return found


def _span(estimate: Mapping[str, Any], level: str) -> str:
    if estimate["accuracy"] is None:
        return "nothing graded"
    low, high = percent(estimate["accuracy_low"]), percent(estimate["accuracy_high"])
    return f"{level}: {low.rstrip('%').rstrip()} to {high}"


def pipeline(metrics: Mapping[str, Any]) -> Rows:
    """A row per stage, and their sum."""
    rows: Rows = []
    seconds = 0.0
    for label, stage in metrics["stages"].items():
        seconds += stage["seconds"]
        tokens = sum(stage["tokens"].values())
        name = label if stage["outcome"] == "ran" else f"{label} ({stage['outcome']})"
        rows.append(
            [
                name,
                number(stage["rows"]) if stage["rows"] else "–",
                duration(stage["seconds"]),
                number(tokens) if tokens else "–",
                number(round(tokens / stage["seconds"])) if tokens and stage["seconds"] else "–",
                number(stage["cost"]) if stage.get("cost") else "–",
                size(stage["size_bytes"]),
                stage["fingerprint"][:10],
            ]
        )
    tokens = sum(sum(stage["tokens"].values()) for stage in metrics["stages"].values())
    money = sum(stage.get("cost") or 0.0 for stage in metrics["stages"].values())
    cost = number(money) if money else "–"
    return [*rows, ["together", "", duration(seconds), number(tokens), "", cost, "", ""]]


def size(num_bytes: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def outcome_rows(metrics: Mapping[str, Any]) -> Rows:
    """The 2x2 table of right and wrong, before and after."""
    found = metrics["paired"]["outcomes"]
    return [
        ["was answered right before", number(found["both_right"]), f"{number(found['lost'])} (lost)"],
        ["was answered wrong before", f"{number(found['gained'])} (gained)", number(found["both_wrong"])],
    ]


def set_rows(metrics: Mapping[str, Any]) -> Rows:
    """A row per evaluation set and way of sampling; none for the held-out questions alone."""
    rows = metrics["sets"]
    if len(rows) < 2 and all(row["teacher_accuracy"] is None for row in rows):
        return []
    return [
        [
            f"{row['set']}, {row['sampling']}",
            number(row["num_questions"]),
            percent(row["before_accuracy"]),
            percent(row["after_accuracy"]),
            f"{points(row['difference'])} ({points(row['low'])} to {points(row['high'])})",
            "below 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}",
            percent(row["teacher_accuracy"]),
            percent(row["of_teacher"], 0),
            percent(row["unparsed_frac"]),
            percent(row["truncated_frac"]),
        ]
        for row in rows
    ]


def standard_rows(metrics: Mapping[str, Any]) -> Rows:
    """Scores of lm-evaluation-harness with their standard errors, in its own units."""

    def written(value: float | None, error: float | None) -> str:
        return number(value) + (f" ± {number(error)}" if error is not None else "")

    return [
        [
            f"{row['task']}, {row['metric']}",
            written(row["before"], row["before_se"]),
            written(row["after"], row["after_se"]),
        ]
        for row in metrics["standard_tasks"]
    ]


def difficulty_rows(metrics: Mapping[str, Any]) -> Rows:
    """Held-out questions from the teacher's hardest tenth to its easiest."""
    return [
        [percent(row["teacher"], 0), percent(row["student"], 0), number(row["num_questions"])]
        for row in metrics["by_difficulty"]
    ]


def at_k_rows(metrics: Mapping[str, Any]) -> Rows:
    """pass@k and maj@k of the student; none for one sample a question."""
    sides = [metrics["paired"][side] for side in ("before", "after")]
    return [
        [f"{title}@{k}", *(percent(side.get(name, {}).get(k)) for side in sides)]
        for name, title in (("pass_at", "pass"), ("maj_at", "maj"))
        for k in sides[0].get(name, {})
    ]


def group_rows(metrics: Mapping[str, Any], config: DistillConfig) -> Rows:
    kinds = metrics["teacher"]["groups"]
    all_wrong = {"drop": "dropped: nothing right to copy", "uniform": "trained on evenly"}
    all_correct = {
        "uniform": "trained on evenly",
        "weigh": "weighed by the other parts of the reward",
        "drop": "dropped",
    }
    return [
        ["mixed", number(kinds["mixed"]), "advantages tell right from wrong"],
        ["all correct", number(kinds["all_correct"]), all_correct[config.weighting.all_correct]],
        ["all wrong", number(kinds["all_wrong"]), all_wrong[config.weighting.all_wrong]],
        ["not gradable", number(kinds["ungradable"]), "left out: no verdict on any response"],
    ]


def weight_note(metrics: Mapping[str, Any]) -> str:
    share, effective = metrics["weight_on_correct_frac"], metrics["effective_sample_size"]
    return (
        f"{percent(share)} of the training weight lies on correct responses. A prompt counts as "
        f"{number(effective)} equally weighted responses on average (effective sample size; k is "
        f"{metrics['teacher']['k']})."
    )


def behaviour_rows(metrics: Mapping[str, Any]) -> Rows:
    sides = [metrics["behaviour"][side] for side in ("teacher", "before", "after")]
    return [[title, *(_figure(name, side.get(name)) for side in sides)] for name, title in _BEHAVIOUR.items()]


def likelihood_rows(metrics: Mapping[str, Any]) -> Rows:
    """Mean log-probability per token of the teacher's right and wrong responses; none where not measured."""
    titles = {
        "logprob_correct": "right responses, nats per token",
        "logprob_wrong": "wrong responses, nats per token",
        "logprob_gap": "right minus wrong",
    }
    sides = [metrics["likelihood"].get(when, {}) for when in ("before", "after")]
    if not any(sides):
        return []
    return [[title, *(number(side.get(name)) for side in sides)] for name, title in titles.items()]


def group_behaviour_rows(metrics: Mapping[str, Any]) -> Rows:
    found = metrics["behaviour"]["teacher_groups"]
    return [[title, _figure(name, found.get(name))] for name, title in _GROUP_BEHAVIOUR.items()]


def _figure(name: str, value: float | None) -> str:
    return percent(value) if name.endswith(_SHARES) else number(value)


def dropped_rows(metrics: Mapping[str, Any], stage_metrics: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Everything that the student did not learn from, or that was not counted."""
    teacher, after = metrics["teacher"], metrics["answers"]["after"]
    weigh, train = stage_metrics.get("weigh", {}), stage_metrics.get("train", {})
    rows: Rows = [
        [f"loading: {name.replace('_', ' ')}", number(count), "see the counts of the stage load"]
        for name, count in stage_metrics.get("load", {}).items()
        if isinstance(count, int) and count and any(part in name for part in ("drop", "repeat", "skip"))
    ]
    counted = [
        (
            "prompts without any verdict",
            teacher["groups"]["ungradable"],
            "reference or responses not gradable",
        ),
        (
            "groups not trained on",
            weigh.get("dropped_groups"),
            _reasons(weigh) or "all wrong, not gradable, or dropped by the settings",
        ),
        (
            "teacher responses not graded",
            teacher["undecided"],
            "timeout or error: no reward, no weight, not wrong",
        ),
        ("teacher responses cut at the token limit", teacher["truncated"], "count as wrong"),
        ("teacher responses without an answer", teacher["unparsed"], "count as wrong"),
        (
            "teacher responses of too little weight",
            weigh.get("slight_responses"),
            "below weighting.min_weight_frac of their group's largest weight",
        ),
        (
            "teacher responses merged",
            teacher["merged"],
            "equal texts of a prompt, trained on once with their summed weight",
        ),
        (
            "rows too long to train on",
            train.get("too_long"),
            "prompt and response exceed student.max_seq_tokens",
        ),
        ("rows empty", train.get("empty"), "nothing to learn from"),
        ("student answers not graded", after["undecided"], "left out of the accuracy after training"),
        ("contaminated prompts and responses", metrics["contamination"]["num_dropped"] or None, "left out"),
        ("questions left out of the comparison", metrics["num_left_out"], "not graded before or after"),
    ]
    return rows + [[what, number(count), why] for what, count, why in counted if count is not None]


def _reasons(weigh: Mapping[str, Any]) -> str:
    found = weigh.get("dropped_because", {})
    return ", ".join(f"{number(count)} {why}" for why, count in found.items())


def contamination_rows(metrics: Mapping[str, Any]) -> Rows:
    found = metrics["contamination"]
    titles: dict[str, str] = {
        "exact": "the same question",
        "template": "the same question with other numbers",
        "ngram": "13 words in a row, or half of its 8-word runs",
    }
    return [
        [title, number(found["in_prompts"].get(kind, 0)), number(found["in_responses"].get(kind, 0))]
        for kind, title in titles.items()
    ]


def contamination_set_rows(metrics: Mapping[str, Any]) -> Rows:
    """What was found of each evaluation set."""
    return [
        [name, *(number(found[key]) for key in ("num_questions", "in_prompts", "in_responses"))]
        for name, found in metrics["contamination"]["sets"].items()
    ]


def contamination_note(metrics: Mapping[str, Any]) -> str:
    found = metrics["contamination"]
    policy = {
        "warn": "What matches stays in the training data.",
        "drop": f"What matches was left out: {counted(found['num_dropped'], 'text')}.",
        "fail": "A match would have stopped the run.",
    }[found["policy"]]
    if not found["common_templates"]:
        return f"Every evaluation question was looked for in every training prompt and response. {policy}"
    return (
        f"{policy} {number(found['questions_of_common_templates'])} held-out questions share the wording of "
        f"{number(found['common_templates'])} generated "
        f"{'family' if found['common_templates'] == 1 else 'families'} (over 10 questions each). Such "
        "wording is not counted: of these questions only equal ones, numbers included, are."
    )


def second_note(metrics: Mapping[str, Any]) -> str:
    """How often an independent grader agrees."""
    found = metrics["second_opinions"]
    if not found["asked"]:
        return ""
    return (
        f"An independent grader saw {number(found['asked'])} of the teacher's responses, evenly spaced; of "
        f"{number(found['disagreeing'])} it says otherwise (filter: Graders disagree)."
    )


def model_rows(config: DistillConfig) -> Rows:
    return [["Teacher", config.teacher.model], ["Student (before training)", config.student.model]]


def versions() -> Rows:
    """Installed versions, of the process that writes the report."""
    rows: Rows = [["Python", python_version()]]
    for name in _PACKAGES:
        try:
            rows.append([name, version(name)])
        except PackageNotFoundError:
            continue
    return rows
