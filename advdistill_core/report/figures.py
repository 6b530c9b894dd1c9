"""The plots, as Plotly figures without colours of their own.

Colours are names of the page's CSS variables (`var(--good)`), put in by the page, so that a plot
follows the light and the dark theme. Histograms are counted here: the page gets bars, not rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advdistill_core.report.gather import Group, Row

Figure = dict[str, Any]

_CORRECT = ("correct", "var(--good)")
_NOT_CORRECT = ("not correct", "var(--bad)")


def distributions(groups: Sequence[Group]) -> list[Figure]:
    """What the teacher's groups gave the student."""
    rows = [r for g in groups for r in g.responses]
    k = max((len(g.responses) for g in groups), default=0)
    per_group = Counter(g.num_correct for g in groups if g.kind != "ungradable")
    counts = {
        "id": "group-counts",
        "title": "Correct responses per prompt",
        "note": "Only prompts between the ends have right and wrong responses to tell apart.",
        "data": [_bar(list(range(k + 1)), [per_group[c] for c in range(k + 1)], "prompts", "var(--accent)")],
        "layout": _layout("correct responses", "prompts", xaxis={"dtick": max(1, k // 8)}),
    }
    trained = [r for r in rows if r["weight"] > 0]
    return [
        counts,
        _by_correctness("rewards", "Reward", rows, "reward", "Sum of the rubric's weighted parts."),
        _by_correctness(
            "advantages", "Advantage", rows, "advantage", "Reward relative to the prompt's other responses."
        ),
        _by_correctness(
            "weights", "Weight in training", trained, "weight", "Only responses that are trained on."
        ),
    ]


def weighting(metrics: Mapping[str, Any]) -> list[Figure]:
    """Of the prompts that are trained on, by their number of correct responses: how many responses
    they count as, and how much of their weight is on correct ones.

    Args:
        metrics: of the stage weigh.
    """
    rows = metrics.get("by_num_correct", [])
    if not rows:
        return []
    labels = [f"{r['num_correct']} of {r['num_gradable']}" for r in rows]
    columns = [
        (
            "effective_sample_size",
            1,
            "Effective sample size",
            "responses",
            "Equally weighted responses that a prompt counts as.",
        ),
        ("weight_on_correct_frac", 100, "Weight on correct responses", "%", ""),
    ]
    found = []
    for name, scale, title, unit, note in columns:
        values = [round(scale * r[name], 2) for r in rows]
        bar = _bar(labels, values, "", "var(--accent)")
        bar["customdata"] = [r["num_groups"] for r in rows]
        bar["hovertemplate"] = "%{x} correct: %{y}<br>%{customdata} prompts<extra></extra>"
        layout = _layout("correct of the graded responses", unit, xaxis={"type": "category"})
        figure = {"id": f"weigh-{name.replace('_', '-')}", "title": title, "note": note, "data": [bar]}
        found.append({**figure, "layout": layout})
    return found


def lengths(groups: Sequence[Group], before: Sequence[Row], after: Sequence[Row]) -> list[Figure]:
    """Lengths of responses: the teacher's, right and wrong apart, and the student's."""
    rows = [r for g in groups for r in g.responses]
    tokens = [r["num_tokens"] for r in [*rows, *before, *after]]
    edges = _edges(tokens, min(40, max(tokens) - min(tokens))) if tokens else None
    if edges is None:
        return []
    sides = [
        ("teacher, correct", [r for r in rows if r["verdict"] == "correct"], "var(--good)"),
        ("teacher, not correct", [r for r in rows if r["verdict"] != "correct"], "var(--bad)"),
        ("student before", before, "var(--muted)"),
        ("student after", after, "var(--accent)"),
    ]
    data = []
    for name, side, colour in sides:
        if not side:
            continue
        counts = np.histogram([r["num_tokens"] for r in side], edges)[0]
        dash = "dot" if name == "student before" else "solid"
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": _middles(edges),
                "y": _rounded(100 * counts / len(side)),
                "line": {"shape": "hvh", "color": colour, "width": 2, "dash": dash},
                "hovertemplate": "%{x:.0f} tokens: %{y:.1f} %<extra>" + name + "</extra>",
            }
        )
    layout = _layout("tokens", "% of the responses", legend=True)
    return [{"id": "lengths", "title": "Length of the responses", "note": "", "data": data, "layout": layout}]


def training(log: Sequence[Row]) -> list[Figure]:
    """Loss, gradient norm and learning rate by optimizer step, and what was looked at meanwhile."""
    wanted = [
        ("loss", "Loss"),
        ("grad_norm", "Gradient norm"),
        ("learning_rate", "Learning rate"),
        ("heldout_accuracy", "Accuracy on prompts kept back"),
        ("heldout_loss", "Loss on prompts kept back"),
        ("chosen_log_prob", "Log-probability of right responses, per token (second stage)"),
    ]
    found = []
    for column, title in wanted:
        points = [(r["step"], r[column]) for r in log if r.get(column) is not None]
        if not points:
            continue
        line = {
            "type": "scatter",
            "mode": "lines" if len(points) > 30 else "lines+markers",
            "x": [p[0] for p in points],
            "y": [p[1] for p in points],
            "line": {"color": "var(--accent)", "width": 2},
            "hovertemplate": "step %{x}: %{y:.4g}<extra></extra>",
        }
        layout = _layout("optimizer step", "")
        layout["yaxis"] |= {"rangemode": "tozero", "exponentformat": "e"}
        found.append({"id": f"train-{column}", "title": title, "note": "", "data": [line], "layout": layout})
    return found


def accuracies(metrics: dict[str, Any]) -> list[Figure]:
    """Accuracy before and after, and the paired difference, each with its interval."""
    if not metrics["num_questions"]:
        return []
    pair = metrics["paired"]
    sides = [("before", pair["before"], "var(--muted)"), ("after", pair["after"], "var(--accent)")]
    dots = [
        _dot(name, e["accuracy"], e["accuracy_low"], e["accuracy_high"], colour) for name, e, colour in sides
    ]
    difference = [_dot("after − before", pair["difference"], pair["low"], pair["high"], "var(--accent)")]
    share = _layout("% answered correctly", "")
    share["xaxis"] |= {"rangemode": "tozero"}
    points = _layout("percentage points", "")
    points["xaxis"] |= {"zeroline": True, "zerolinewidth": 2}
    points["shapes"] = [
        {
            "type": "line",
            "x0": 0,
            "x1": 0,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": "var(--ink)", "dash": "dot"},
        }
    ]
    for layout in (share, points):
        layout["height"] = 190
        layout["yaxis"] |= {"ticksuffix": "  "}
    share["yaxis"]["range"], points["yaxis"]["range"] = [1.6, -0.6], [0.6, -0.6]
    return [
        {"id": "accuracy", "title": "Accuracy", "note": "", "data": dots, "layout": share},
        {"id": "difference", "title": "Paired difference", "note": "", "data": difference, "layout": points},
    ]


def arms(name: str, title: str, rows: Sequence[tuple[str, float, float, float, bool]]) -> Figure:
    """A dot with its interval for every arm of a comparison.

    Args:
        rows: name, accuracy, ends of the interval, and whether it was trained here.
    """
    dots = [
        _dot(arm, share, low, high, "var(--accent)" if trained else "var(--muted)")
        for arm, share, low, high, trained in rows
    ]
    layout = _layout("% right", "")
    layout["height"] = 70 + 26 * len(dots)
    layout["yaxis"] |= {"autorange": "reversed", "ticksuffix": "  "}
    return {"id": name, "title": title, "note": "", "data": dots, "layout": layout}


def _dot(name: str, value: float, low: float, high: float, colour: str) -> dict[str, Any]:
    x, left, right = (100 * v for v in (value, low, high))
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x],
        "y": [name],
        "marker": {"size": 13, "color": colour},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [right - x],
            "arrayminus": [x - left],
            "thickness": 3,
            "width": 8,
            "color": colour,
        },
        "hovertemplate": f"{name}: {x:.1f} ({left:.1f} to {right:.1f})<extra></extra>",
    }


def _by_correctness(name: str, title: str, rows: Sequence[Row], column: str, note: str) -> Figure:
    rows = [r for r in rows if r[column] is not None]
    edges = _edges([r[column] for r in rows])
    data = []
    if edges is not None:
        for (label, colour), right in ((_CORRECT, True), (_NOT_CORRECT, False)):
            counts = np.histogram([r[column] for r in rows if (r["verdict"] == "correct") == right], edges)[0]
            bar = _bar(_middles(edges), counts.tolist(), label, colour)
            bar["width"] = float(edges[1] - edges[0])
            data.append(bar)
    layout = _layout(title.lower(), "responses", legend=True)
    layout["barmode"] = "stack"
    return {"id": name, "title": title, "note": note, "data": data, "layout": layout}


def _edges(values: Sequence[float], num_bins: int = 40) -> Any:
    """Edges of equal bins over the values, or None without any."""
    if not values:
        return None
    low, high = min(values), max(values)
    if low == high or num_bins < 2:
        return np.array([low - 0.5, high + 0.5])
    return np.linspace(low, high, num_bins + 1)


def _middles(edges: Any) -> list[float]:
    return _rounded((edges[:-1] + edges[1:]) / 2)


def _rounded(values: Any) -> list[float]:
    return [float(f"{v:.5g}") for v in values]


def _bar(x: list[Any], y: Sequence[float], name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "x": x,
        "y": y,
        "name": name,
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": f"%{{x:.3g}}: %{{y}} {name}<extra></extra>",
    }


def _layout(x: str, y: str, legend: bool = False, **axes: Any) -> dict[str, Any]:
    axis = {
        "gridcolor": "var(--line)",
        "zerolinecolor": "var(--line)",
        "automargin": True,
        "fixedrange": True,
    }
    return {
        "height": 280,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--ink)", "family": "system-ui, sans-serif", "size": 13},
        "showlegend": legend,
        "legend": {"orientation": "h", "traceorder": "normal", "y": 1.02, "yanchor": "bottom", "x": 0},
        "bargap": 0.12,
        "dragmode": False,
        "xaxis": {**axis, "title": {"text": x}, **axes.get("xaxis", {})},
        "yaxis": {**axis, "title": {"text": y}, **axes.get("yaxis", {})},
    }
