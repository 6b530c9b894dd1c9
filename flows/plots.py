"""Small plots for the Prefect UI, as SVG in a data address: its pages load nothing from disk."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from advdistill_core.report.wording import number, percent

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 260, 60, 36
# Readable on the light and on the dark theme, whose background shows through.
_INK, _GRID, _ACCENT = "#64748b", "#94a3b8", "#2563eb"


def accuracies(metrics: Mapping[str, Any]) -> str | None:
    """Shares of right answers with their intervals; None if the run measured none."""
    pair, teacher = metrics.get("paired"), metrics.get("teacher")
    if not pair or not teacher or not pair["before"]["num_questions"]:
        return None
    shown = [
        ("teacher, training questions", teacher["pass_rate"]),
        ("student before, held-out questions", pair["before"]),
        ("student after, held-out questions", pair["after"]),
    ]
    rows, left, width, step = [], 240, _WIDTH - 240 - 70, 60
    for i, (name, found) in enumerate(shown):
        if found["accuracy"] is None:
            continue
        y = _TOP + 24 + step * i
        x, low, high = (left + width * found[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
        rows.append(_text(left - 10, y + 5, name, "end"))
        rows.append(f'<rect x="{left}" y="{y - 12}" width="{x - left:.1f}" height="24" fill="{_ACCENT}"/>')
        rows.append(_line(low, y, high, y) + _line(low, y - 6, low, y + 6) + _line(high, y - 6, high, y + 6))
        rows.append(_text(max(x, high) + 8, y + 5, percent(found["accuracy"])))
    rows += [_text(left + width * share, _HEIGHT - 8, percent(share, 0), "middle") for share in (0, 0.5, 1)]
    return _address("Right answers, with intervals", rows)


def loss(steps: Sequence[int], losses: Sequence[float]) -> str | None:
    """The training loss over the optimizer's steps; None for fewer than two points."""
    points = [(s, v) for s, v in zip(steps, losses, strict=True) if v is not None and v == v]
    if len(points) < 2:
        return None
    low, high = min(v for _, v in points), max(v for _, v in points)
    spread, last = (high - low) or 1.0, points[-1][0]
    width, height = _WIDTH - _LEFT - 20, _HEIGHT - _TOP - 40
    path = " ".join(
        f"{_LEFT + width * s / last:.1f},{_TOP + height * (high - v) / spread:.1f}" for s, v in points
    )
    bottom = _TOP + height
    rows = [
        f'<polyline points="{path}" fill="none" stroke="{_ACCENT}" stroke-width="2"/>',
        _line(_LEFT, bottom, _LEFT + width, bottom),
        _text(_LEFT - 8, _TOP + 5, number(high), "end"),
        _text(_LEFT - 8, bottom + 5, number(low), "end"),
        _text(_LEFT + width, bottom + 20, f"step {last}", "end"),
    ]
    return _address("Training loss per optimizer step", rows)


def _address(title: str, rows: Sequence[str]) -> str:
    body = "".join(rows)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="13">'
        f'<text x="10" y="20" font-weight="bold" fill="{_INK}">{escape(title)}</text>{body}</svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{_GRID}" stroke-width="2"/>'
