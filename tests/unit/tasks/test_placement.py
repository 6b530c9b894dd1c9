"""Stages on the GPU pool: what is said where the machines have different versions."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from prefect.states import Completed, Running, Scheduled

from advdistill_core import __version__
from advdistill_core.config import DistillConfig
from advdistill_core.errors import StageError
from flows import gpu_stage
from tasks import placement


def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tags of a stage's run, as a submitter sets them."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(placement, "run_deployment", lambda name, **options: told.update(options))
    placement._submit("key", {"stage": "train", "config": {"name": "a"}})
    return list(told["tags"])


def warnings(monkeypatch: pytest.MonkeyPatch, tags: list[str]) -> list[str]:
    """What a worker says of a run with these tags; the stage goes on."""
    logger, ran = Mock(), Mock(side_effect=StageError("enough"))
    monkeypatch.setattr(gpu_stage, "flow_run", SimpleNamespace(tags=tags))
    monkeypatch.setattr(gpu_stage, "get_run_logger", lambda: logger)
    monkeypatch.setattr(gpu_stage, "Reporter", Mock())
    monkeypatch.setattr(gpu_stage, "run_in_child", ran)
    gpu_stage.gpu_stage.fn("train", DistillConfig(), {}, {})
    ran.assert_called_once()
    return [call.args[0] for call in logger.warning.call_args_list]


def test_a_worker_of_another_version_says_so_once_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = ["advdistill", "internal", *submitted(monkeypatch)]  # the deployment's, and the run's own
    assert warnings(monkeypatch, tags) == []
    monkeypatch.setattr(placement, "__version__", "9.8.7")  # the worker's
    (told,) = warnings(monkeypatch, tags)
    assert told.startswith(
        f"This worker has advdistill 9.8.7, the run that asked for this stage {__version__}:"
    )


def test_a_run_of_an_older_version_has_no_tag_and_is_not_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warnings(monkeypatch, ["advdistill", "internal"]) == []


def test_a_stage_that_no_worker_takes_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = [Scheduled()] * 40 + [Running(), Completed()]
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr(placement.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(placement.time, "sleep", lambda seconds: None)
    child = placement._Child.__new__(placement._Child)
    child.stage, child.logger, child.client, child.run = "train", Mock(), Mock(), Mock()
    child.client.read_flow_run = Mock(side_effect=[Mock(state=state) for state in states])
    monkeypatch.setattr(child, "_pass_on", lambda: None)
    child.is_made = lambda: False
    assert child._follow().is_completed()
    (told,) = child.logger.warning.call_args_list
    assert (
        told.args[0] % told.args[1:]
        == "stage train waits for a worker of its pool: none is free, or none runs"
    )
