"""What the Prefect UI is told of a stage's progress."""

import pytest

from advdistill_core.progress import Event
from tasks import progress


def test_figures_and_what_is_waited_for_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, str]] = []
    monkeypatch.setattr(progress.Reporter, "show", lambda self, *what: shown.append(what))
    monkeypatch.setattr(progress, "_UPDATE_EVERY_S", 0.0)
    reporter = progress.Reporter("generate")
    reporter._in_run = True
    waiting = Event(stage="generate", done=0, total=8, unit="responses", message="starting vLLM")
    reporter(waiting)
    figures = {"kept": 2, "tokens/s": 13794.2, "eta_s": 126.9, "cost_usd": 0.5}
    reporter(Event(stage="generate", done=2, total=8, unit="responses", figures=figures))
    assert shown == [
        (0.0, "generate: 0 of 8 responses, starting vLLM"),
        (25.0, "generate: 2 of 8 responses, 2 min 07 s left, kept 2, 13794 tokens/s, cost usd 0.5"),
    ]
