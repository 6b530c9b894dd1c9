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
    assert "evaluate: 5/10 responses, 20 s left, 20 tokens/s\n" in capsys.readouterr().err


def test_lines_have_no_empty_parts_and_long_times_are_in_minutes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    display = terminal.Display()
    display(Event(stage="train", done=0, total=0, unit="steps", message="loading the student"))
    for done in (0, 1, 10):
        clock[0] += 100
        display(Event(stage="train", done=done, total=10, unit="steps", figures={"grad_norm": 0.5}))
    assert capsys.readouterr().err.splitlines() == [
        "train: loading the student",
        "train: 0/10 steps, grad norm 0.5",
        "train: 1/10 steps, 30 min 00 s left, grad norm 0.5",
        "train: 10/10 steps, grad norm 0.5",
    ]


def test_a_remark_does_not_wait_and_nothing_is_said_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    display = terminal.Display()
    for second, message in enumerate(("", "vLLM died", "still waiting", "")):
        clock[0] = 1000.0 + second
        display(Event(stage="generate", done=1, total=4, unit="responses", message=message))
    for _ in range(2):
        display(Event(stage="generate", done=4, total=4, unit="responses"))
    assert capsys.readouterr().err.splitlines() == [
        "generate: 1/4 responses",
        "generate: 1/4 responses, vLLM died",
        "generate: 4/4 responses",
    ]
