"""The recipes for real hardware: they load, would run, fit the memory they name, and say how long."""

import json
import sys
from pathlib import Path

import pytest

from advdistill_core.config import DistillConfig
from flows import catalog, cli, hardware
from flows.hardware import LARGE, SHAPES, SMALL, Gpu, estimate

CARDS: dict[str, tuple[Gpu, int]] = {
    "gsm8k-qwen-0.5b": (LARGE, 1),
    "open-s1-qwen-1.5b": (LARGE, 1),
    "mmlu-pro-qwen-3b": (LARGE, 1),
    "gsm8k-24gb": (SMALL, 1),
    "gsm8k-24gb-lora": (SMALL, 1),
    "open-s1-8gpus": (LARGE, 8),
    "gsm8k-api": (SMALL, 1),
}
_SPARE = 0.9  # of the memory; the rest is for what arithmetic forgets
TRAINED_ON = {"gsm8k": "openai/gsm8k", "open-s1": "knoveleng/open-s1", "mmlu-pro": "TIGER-Lab/MMLU-Pro"}


def load(name: str, *overrides: str) -> DistillConfig:
    return catalog.load(name, list(overrides))


def test_every_recipe_for_a_gpu_is_here() -> None:
    assert set(CARDS) == set(catalog.shipped()) - {"quickstart", "smoke", "gsm8k-smollm2"}


@pytest.mark.parametrize("name", CARDS)
def test_description_and_memory(name: str) -> None:
    config, (gpu, count) = load(name), CARDS[name]
    found = estimate(config, gpu)
    assert catalog.about(catalog.shipped()[name]).endswith(found.text(gpu, count))
    assert found.teacher_gib < _SPARE * gpu.memory_gib
    assert found.student_gib < _SPARE * gpu.memory_gib
    assert max(config.student.num_processes, config.teacher.vllm.data_parallel) == count
    assert config.teacher.k == 8
    assert config.rewards.max_len == config.teacher.max_new_tokens
    assert config.student.max_seq_tokens > config.teacher.max_new_tokens
    assert config.student.batch_tokens >= config.student.max_seq_tokens


@pytest.mark.parametrize("name", CARDS)
def test_measured_on_what_it_was_trained_for_and_on_something_else(name: str) -> None:
    config = load(name)
    trained_on = next(dataset for key, dataset in TRAINED_ON.items() if name.startswith(key))
    assert config.prompts.dataset == trained_on
    assert config.prompts.num_heldout >= 500
    assert {one.dataset for one in config.evaluation.sets} - {trained_on}
    assert all(one.source == "datasets" for one in config.evaluation.sets)


@pytest.mark.parametrize("name", ["gsm8k-qwen-0.5b", "open-s1-qwen-1.5b", "mmlu-pro-qwen-3b"])
@pytest.mark.parametrize("student", ["0.5B", "1.5B", "3B"])
def test_every_student_of_every_data_set(name: str, student: str) -> None:
    config = load(
        name, f"student.model=Qwen/Qwen2.5-{student}-Instruct", "student.gradient_checkpointing=true"
    )
    assert estimate(config, LARGE).student_gib < _SPARE * LARGE.memory_gib


@pytest.mark.parametrize("name", CARDS)
def test_dry_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the Hub, vLLM and the endpoint would say is taken for granted; the rest is real."""
    for check in (
        "advdistill_core.models.check",
        "advdistill_core.models.sources.check",
        "advdistill_core.prompts.hub._check_hub",
        "advdistill_core.teachers.vllm_command.find",
        "advdistill_core.teachers.probe.probe",
    ):
        monkeypatch.setattr(check, lambda *_: None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENROUTER_API_KEY", "unused")
    root = tmp_path / "store"
    monkeypatch.setattr(sys, "argv", ["advdistill", "run", name, "--dry-run", "--json", "--root", str(root)])
    assert cli.guarded(cli.app) == 0, capsys.readouterr().err
    stages = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["stages"]
    assert {"load", "generate", "verify", "weigh", "train", "publish"} <= set(stages)
    assert set(stages.values()) == {"would run"}
    assert not root.exists()


def test_figures_worked_out_by_hand() -> None:
    shape = SHAPES["Qwen/Qwen2.5-7B-Instruct"]
    assert shape.kv_bytes == 2 * 2 * 28 * 4 * 128 == 57_344
    small = SHAPES["Qwen/Qwen2.5-0.5B-Instruct"]
    assert small.activation_bytes == 24 * (2 * (8 * 896 + 4 * 4864) + 16 * 896) == 1_622_016
    found = estimate(load("gsm8k-24gb"), SMALL)
    # 18 bytes a weight, 4096 tokens kept, 1.5 GiB for CUDA
    assert found.student_gib * 2**30 == pytest.approx(18 * 0.494e9 + 4096 * 1_622_016 + 1.5 * 2**30)
    # weights, 8 sequences of 200 + 768 tokens, 1.5 GiB
    assert found.teacher_gib * 2**30 == pytest.approx(2 * 7.616e9 + 8 * 968 * 57_344 + 1.5 * 2**30)
    # two epochs over 6973 prompts of 200 tokens and 8 responses of 256: 6 operations a weight
    tokens = 2 * 6973 * (200 + 8 * 256)
    assert found.train_h * 3600 == pytest.approx(6 * 0.494e9 * tokens / (0.3 * 125e12))


def test_what_helps_helps() -> None:
    base = load("open-s1-qwen-1.5b")
    less = load("open-s1-qwen-1.5b", "student.gradient_checkpointing=true")
    assert estimate(less, LARGE).student_gib < estimate(base, LARGE).student_gib
    assert estimate(less, LARGE).train_h > estimate(base, LARGE).train_h
    lora = load("open-s1-qwen-1.5b", "student.lora_rank=16")
    assert estimate(lora, LARGE).student_gib < estimate(base, LARGE).student_gib
    wide = load("open-s1-qwen-1.5b", "teacher.vllm.data_parallel=8")
    assert estimate(wide, LARGE).generate_h == pytest.approx(estimate(base, LARGE).generate_h / 8)
    assert hardware.estimate(base, LARGE).hours > 0
