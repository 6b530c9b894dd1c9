"""The stage `compare`: the arms' scores become tables, a figure and a page."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advdistill_core.compare import ARMS, Outcome, accuracies, differences, outcome_of
from advdistill_core.config import DistillConfig
from advdistill_core.progress import Event, Progress
from advdistill_core.report import figures, page, sections
from advdistill_core.report.wording import number, percent, points
from advdistill_core.store import Artifact, ArtifactWriter

GREEDY, SAMPLES = "as configured", "samples"

Row = dict[str, Any]


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The page shows the run's name and intervals of this level."""
    return {"name": config.name, "confidence": config.evaluation.confidence}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Write `comparison.json`, `comparison.csv` and `report.html`.

    Args:
        inputs: `scores/ARM/SEED/SET[/samples]`, `students/ARM/SEED` and `weights/ARM`.
        params: `reference`, the arm that the others are compared with.
    """
    progress(Event(stage="compare", done=0, total=1, unit="steps", message="computing the figures"))
    outcomes = read(inputs)
    found = compared(outcomes, spent(inputs), params["reference"], config.evaluation.confidence)
    html = render(config, found)
    out.write_file("report.html", html.encode())
    out.write_file("comparison.json", json.dumps(found, indent=1, allow_nan=False).encode())
    out.write_file("comparison.csv", as_csv(found["table"]).encode())
    out.note(metrics={"headline": found["headline"]})
    progress(Event(stage="compare", done=1, total=1, unit="steps"))


def read(inputs: Mapping[str, Artifact]) -> list[Outcome]:
    """The outcomes of all arms, in the order in which they ran."""
    found = []
    for name, artifact in inputs.items():
        kind, *place = name.split("/")
        if kind == "scores":
            arm, seed, chosen = place[:3]
            rows = [row for table in artifact.tables() for row in table.to_pylist()]
            sampling = SAMPLES if len(place) > 3 else GREEDY
            found.append(outcome_of(arm, None if seed == "any" else int(seed), chosen, sampling, rows))
    return sorted(found, key=lambda o: ([*ARMS].index(o.arm), o.seed or 0))


def spent(inputs: Mapping[str, Artifact]) -> dict[str, Row]:
    """By arm: optimizer steps and completion tokens of a training, and what the weights are like."""
    found: dict[str, Row] = {}
    for name, artifact in inputs.items():
        kind, *place = name.split("/")
        metrics = artifact.manifest.metrics
        if kind == "students":
            tokens = artifact.manifest.tokens.get("completion", 0)
            facts = {"steps": metrics.get("num_steps", 0), "tokens": tokens}
            found.setdefault(place[0], {}).update(facts | {"not_trained": metrics.get("nothing_to_train")})
        elif kind == "weights":
            names = ("trained_responses", "dropped_groups", "effective_sample_size", "weight_on_correct_frac")
            found.setdefault(place[0], {}).update({name: metrics.get(name) for name in names})
    return found


def compared(
    outcomes: Sequence[Outcome], costs: Mapping[str, Row], reference: str, confidence: float
) -> dict[str, Any]:
    """Everything the page and the tables show."""
    shares = accuracies(outcomes, confidence)
    against = differences(outcomes, reference, confidence)
    by_place = {(row["arm"], row["set"], row["sampling"]): row for row in against}
    table = [
        {
            "arm": row["arm"],
            "set": row["set"],
            "sampling": row["sampling"],
            "accuracy": row["accuracy"],
            "low": row["accuracy_low"],
            "high": row["accuracy_high"],
            "of_teacher": row["of_teacher"],
            **_difference(by_place.get((row["arm"], row["set"], row["sampling"]))),
            "seeds": row["num_seeds"],
            "steps": costs.get(row["arm"], {}).get("steps"),
            "tokens": costs.get(row["arm"], {}).get("tokens"),
            "unparsed": row["unparsed_frac"],
            "truncated": row["truncated_frac"],
        }
        for row in shares
    ]
    return {
        "headline": headline(by_place, reference, confidence),
        "reference": reference,
        "table": table,
        "accuracies": shares,
        "differences": against,
        "spent": dict(costs),
    }


def _difference(row: Row | None) -> Row:
    """An arm minus the reference; empty for the reference itself."""
    names = {"difference_low": "low", "difference_high": "high"}
    columns = ("difference", "difference_low", "difference_high", "p_holm")
    return {name: row[names.get(name, name)] if row else None for name in columns}


def headline(by_place: Mapping[tuple[str, str, str], Row], reference: str, confidence: float) -> str:
    """Which arms are told apart from the reference on the held-out questions (else the first set)."""
    places = [place for _, *place in by_place]
    chosen = ["heldout", GREEDY] if ["heldout", GREEDY] in places else next(iter(places), None)
    rows = [row for (_, *place), row in by_place.items() if place == chosen]
    trained = [row for row in rows if ARMS[row["arm"]].trained]
    alpha = 1 - confidence
    below = [r["arm"] for r in trained if r["p_holm"] < alpha and r["difference"] < 0]
    above = [r["arm"] for r in trained if r["p_holm"] < alpha and r["difference"] > 0]
    named, open_ = ARMS[reference].title, len(trained) - len(below) - len(above)
    parts = [f"{named} beats {', '.join(below)}"] if below else []
    parts += [f"{', '.join(above)} {'beats' if len(above) == 1 else 'beat'} {named}"] if above else []
    parts += [f"{open_} of {len(trained)} other arms are not told apart from {named}"] if open_ else []
    where = "the held-out questions" if chosen is None or chosen[0] == "heldout" else f"the set {chosen[0]}"
    return f"On {where}: " + ("; ".join(parts) or "no other arm was trained") + "."


def as_csv(rows: Sequence[Row]) -> str:
    """The table for spreadsheets."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["arm"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def render(config: DistillConfig, found: Mapping[str, Any]) -> str:
    """The page."""
    level = f"{100 * config.evaluation.confidence:g} %"
    places = dict.fromkeys((row["set"], row["sampling"]) for row in found["table"])
    return page.filled(
        "comparison.html.j2",
        config.name,
        {"accuracy": [_figure(found["table"], *place) for place in places]},
        [],
        kind="comparison",
        headline=found["headline"],
        level=level,
        reference=ARMS[found["reference"]].title,
        tables=[(_title(*place), table_rows(found["table"], *place)) for place in places],
        spent_rows=spent_rows(found["spent"]),
        arm_rows=[[a, ARMS[a].title, _changes(a)] for a in dict.fromkeys(r["arm"] for r in found["table"])],
        versions=sections.versions(),
    )


def _title(name: str, sampling: str) -> str:
    return f"{name}, {sampling}"


def _figure(rows: Sequence[Row], name: str, sampling: str) -> figures.Figure:
    chosen = [row for row in rows if (row["set"], row["sampling"]) == (name, sampling)]
    arms = [
        (r["arm"], r["accuracy"], r["low"], r["high"], ARMS[r["arm"]].trained)
        for r in chosen
        if r["accuracy"] is not None
    ]
    return figures.arms(f"{name}-{sampling}".replace(" ", "-"), _title(name, sampling), arms)


def table_rows(rows: Sequence[Row], name: str, sampling: str) -> sections.Rows:
    """A row per arm: accuracy, difference to the reference, share of the teacher's accuracy."""
    return [
        [
            ARMS[row["arm"]].title,
            _span(percent, row["accuracy"], row["low"], row["high"]),
            _span(points, row["difference"], row["difference_low"], row["difference_high"]),
            "" if row["p_holm"] is None else _p_value(row["p_holm"]),
            percent(row["of_teacher"], 0),
            percent(row["unparsed"]),
            percent(row["truncated"]),
        ]
        for row in rows
        if (row["set"], row["sampling"]) == (name, sampling)
    ]


def spent_rows(costs: Mapping[str, Row]) -> sections.Rows:
    """What each arm trained on; equal steps, and tokens as equal as prompts allow."""
    return [
        [
            ARMS[arm].title,
            number(row.get("steps")),
            number(row.get("tokens")),
            number(row.get("trained_responses")),
            number(row.get("effective_sample_size")),
            percent(row.get("weight_on_correct_frac")),
            row.get("not_trained") or "",
        ]
        for arm, row in costs.items()
    ]


def _span(write: Callable[[float], str], value: float | None, low: float, high: float) -> str:
    return "" if value is None else f"{write(value)} ({write(low)} to {write(high)})"


def _p_value(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _changes(arm: str) -> str:
    changed = [f"{s}.{f} = {v}" for s, fields in ARMS[arm].changes.items() for f, v in fields.items()]
    return ", ".join(changed) or ("as configured" if ARMS[arm].trained else "not trained")
