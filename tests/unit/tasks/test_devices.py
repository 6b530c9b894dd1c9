"""Which stages take a slot of the GPU pool, and where the others run."""

from typing import Any

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.config.loading import apply_overrides, build_config
from advdistill_core.errors import InputError
from advdistill_core.stages import STAGES
from flows import precheck
from tasks import perform, placement
from tasks.devices import takes_gpu

LOADING = ["generate", "train", "evaluate", "harness", "likelihood"]
ENDPOINT = ["teacher.backend=openai", "teacher.model=m", "teacher.base_url=http://127.0.0.1:9/v1"]
ALL_ON_CPU = ["teacher.device=cpu", "student.device=cpu", "evaluation.device=cpu"]


def config(*settings: str, placement: str = "pools") -> DistillConfig:
    return build_config(apply_overrides({}, [f"placement={placement}", *settings]))


@pytest.mark.parametrize(
    ("settings", "on_gpu"),
    [
        ([], LOADING),
        (ENDPOINT, LOADING[1:]),
        ([*ENDPOINT, "teacher.workers=2"], LOADING),
        ([*ENDPOINT, "teacher.mixture=[{model: a}]"], LOADING),
        ([*ENDPOINT, "teacher.mixture=[{model: a}]", "teacher.device=cpu"], LOADING[1:]),
        (["teacher.backend=vllm"], LOADING),
        (["teacher.device=cpu"], LOADING[1:]),
        (["student.device=cpu"], ["generate", "evaluate", "harness", "likelihood"]),
        (["evaluation.device=cpu"], ["generate", "train"]),
        (["evaluation.device=cuda:0"], LOADING),
        (ALL_ON_CPU, []),
    ],
)
def test_a_slot_is_taken_by_what_loads_a_model_elsewhere_than_on_the_cpu(
    settings: list[str], on_gpu: list[str]
) -> None:
    chosen = config(*settings)
    assert sorted(name for name, stage in STAGES.items() if takes_gpu(stage, chosen)) == sorted(on_gpu)
    locally = config(*settings, placement="local")
    assert not any(takes_gpu(stage, locally) for stage in STAGES.values())


def test_what_takes_no_slot_is_a_process_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, str]] = []
    monkeypatch.setattr(perform, "Reporter", lambda name: None)
    monkeypatch.setattr(perform, "run_in_child", lambda stage, *_: ran.append((stage.name, "here")))
    monkeypatch.setattr(placement, "run_on_pool", lambda stage, *_: ran.append((stage.name, "pool")))
    given: dict[str, Any] = {"prompts": None}
    perform.perform(STAGES["generate"], config(*ENDPOINT), **given)
    perform.perform(STAGES["train"], config(*ENDPOINT), **given)
    assert ran == [("generate", "here"), ("train", "pool")]


def test_an_endpoint_that_this_run_will_ask_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precheck, "plan", lambda _: {"generate": "to do"})
    with pytest.raises(InputError, match=r"teacher.*127\.0\.0\.1:9"):
        precheck._check_endpoints(config(*ENDPOINT))
    precheck._check_endpoints(config(*ENDPOINT, "teacher.workers=2"))  # that is the workers' to do
