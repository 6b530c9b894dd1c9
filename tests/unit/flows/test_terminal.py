"""Rates and remaining time where there is no terminal."""

import pytest

from advdistill_core.progress import Event
from flows import terminal


def test_a_stage_that_runs_twice_is_timed_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    display = terminal.Display()
    for tokens, done in ((0, 0), (200, 10)):
        display(Event(stage="evaluate", done=done, total=10, unit="responses", tokens=tokens))
        clock[0] += 20
    clock[0] += 1000  # other stages
    for tokens, done in ((0, 0), (400, 5)):
        display(Event(stage="evaluate", done=done, total=10, unit="responses", tokens=tokens))
        clock[0] += 20
    assert "evaluate: 5/10 responses, 20 s left 20 tokens/s" in capsys.readouterr().err
