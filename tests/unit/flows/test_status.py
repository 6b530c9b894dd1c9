"""`status`: which run, for how long, at which step, and how it ended."""

import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.progress import Event
from advdistill_core.store import Store
from flows import cli, compare, distill, evaluate, generate, recorder, redistill, train
from flows.cancelled import note_cancelled
from flows.run_record import FOLDER, RunRecord, UnderWay, read_runs
from tasks.progress import display


def keep(root: Path, **fields: Any) -> RunRecord:
    run = RunRecord(**{"run_id": "r1", "name": "quickstart", "state": "running", "started_at": 0.0} | fields)
    Store(str(root)).files.write(f"{FOLDER}/{run.run_id}.json", run.model_dump_json().encode())
    return run


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `status` prints on 80 columns: its cells, joined, or the object."""

    def ask(*options: str) -> Any:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["advdistill", "status", "--root", str(tmp_path), *options])
        assert cli.guarded(cli.app) == 0
        told = capsys.readouterr().out
        if options:
            return json.loads(told)["runs"]
        rows = [re.split("[│┃]", line)[1:-1] for line in told.splitlines() if re.search("[│┃]", line)]
        return [" ".join("".join(column).split()) for column in zip(*rows, strict=True)]

    return ask


def test_a_run_has_its_own_name_beside_the_recipes(tmp_path: Path, status: Any) -> None:
    keep(tmp_path, run_name="mine-by-form")
    assert status()[1] == "name mine-by-form (recipe quickstart)"
    assert status("--json")[0]["run_name"] == "mine-by-form"
    for same in ("quickstart", None):  # older records have none
        keep(tmp_path, run_name=same)
        assert status()[1] == "name quickstart"


def test_a_run_under_way_says_for_how_long_and_where_it_is(tmp_path: Path, status: Any) -> None:
    at = UnderWay(label="generate", started_at=time.time() - 90, progress="34 of 64 responses")
    keep(tmp_path, started_at=time.time() - 180, under_way=at)
    told = status()
    assert told[3] == "minutes 3.0"
    assert told[4] == "stages generate under way for 1.5 min: 34 of 64 responses"
    (listed,) = status("--json")
    assert listed["elapsed_s"] == pytest.approx(180, abs=30)
    assert listed["under_way"]["progress"] == "34 of 64 responses"
    keep(tmp_path, state="completed", seconds=60.0)
    assert status()[3] == "minutes 1.0"
    assert status("--json")[0]["elapsed_s"] == 60


def test_the_record_follows_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[UnderWay | None] = []

    def under_way() -> None:
        (run,) = read_runs(str(tmp_path))
        found.append(run.under_way)

    def step(*_: object, **__: object) -> Any:
        under_way()
        for done in (3, 4):
            display.get()(Event(stage="generate", done=done, total=9, unit="responses"))
            under_way()
        ref = SimpleNamespace(outcome="ran", rows=9, uri="")
        return SimpleNamespace(name="Completed", result=lambda: ref)

    shown: list[int] = []
    monkeypatch.setattr(recorder, "end_with_owner", lambda: None)
    monkeypatch.setattr(recorder, "RunPage", Mock())
    monkeypatch.setattr(recorder.RunRecorder, "_configured", lambda *_: step)
    monkeypatch.setattr(recorder, "flow_run", SimpleNamespace(id="r1", name="mine-by-form"))
    token = display.set(lambda event: shown.append(event.done))
    try:
        task = Mock()
        task.name = "generate"
        run = recorder.RunRecorder(DistillConfig.model_validate({"storage": {"root": str(tmp_path)}}))
        run.step(task, label="evaluate before")
        display.get()(Event(stage="generate", done=5, total=9, unit="responses"))
    finally:
        display.reset(token)
    under_way()
    assert [at and (at.label, at.progress) for at in found] == [
        ("evaluate before", ""),
        ("evaluate before", "3 of 9 responses"),
        ("evaluate before", "3 of 9 responses"),  # a disk is not written at every response
        None,
    ]
    assert shown == [3, 4, 5], "the terminal shows all"
    assert read_runs(str(tmp_path))[0].run_name == "mine-by-form"


def test_a_store_that_cannot_be_written_does_not_disturb_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "end_with_owner", lambda: None)
    monkeypatch.setattr(recorder, "RunPage", Mock())
    run = recorder.RunRecorder(DistillConfig.model_validate({"storage": {"root": str(tmp_path)}}))
    monkeypatch.setattr(run.store.files, "write", Mock(side_effect=OSError("no space left")))
    with run._under_way("train"):
        display.get()(Event(stage="train", done=1, total=2, unit="steps"))
    assert run.store.files.write.call_count == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"state": "interrupted", "ended_in": "train"}, ("cancelled", "train")),
        ({"under_way": UnderWay(label="generate", started_at=1.0)}, ("cancelled", "generate")),  # SIGKILL
        ({"state": "completed"}, ("completed", None)),
        ({"state": "failed", "ended_in": "load"}, ("failed", "load")),
    ],
    ids=["ended", "killed", "was complete", "had failed"],
)
def test_a_cancelled_run_is_called_so(
    tmp_path: Path, status: Any, before: dict[str, Any], after: tuple[str, str | None]
) -> None:
    keep(tmp_path, **before)
    asked = Mock(id="r1", parameters={"config": {"storage": {"root": str(tmp_path)}}})
    note_cancelled(flow=Mock(), flow_run=asked, state=Mock())
    (run,) = read_runs(str(tmp_path))
    assert (run.state, run.ended_in) == after
    assert status()[2] == f"state {after[0]}"
    note_cancelled(flow=Mock(), flow_run=Mock(id="none", parameters=asked.parameters), state=Mock())


def test_every_flow_with_a_record_notes_its_cancellation() -> None:
    flows = (
        compare.compare,
        distill.distill,
        evaluate.evaluate_flow,
        generate.generate_flow,
        redistill.redistill,
        train.train_flow,
    )
    assert all(flow.on_cancellation_hooks == [note_cancelled] for flow in flows)
