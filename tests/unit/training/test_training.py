"""Trainings to convergence, and what goes wrong on the way."""

import errno
import random
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from advdistill_core.config import StudentConfig, WeightingConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.models.layers import keep_layers
from advdistill_core.models.tiny import NAME as TINY
from advdistill_core.progress import silent
from advdistill_core.training import checkpoints, trainer
from advdistill_core.training.fit import fit
from advdistill_core.training.rows import Group, Row
from advdistill_core.training.student import load_student, save_student
from advdistill_core.weighting import weigh_group

SCHEMES = ["softmax", "positive", "exp_clip", "shifted", "filter", "best", "uniform", "first"]


def test_a_student_trained_to_convergence_is_the_weighted_distribution(lab, tmp_path):
    """Closed form: the minimum of sum w * nll is p = w. One prompt for every scheme, so
    that one training shows them all; equal answers add up."""
    answers = [5, 9, 5, 12, 7, 9, 20, 5]
    rewards = [1.2, 1.0, 0.2, 1.1, 0.0, 0.1, 0.15, 1.2]
    correct = [r >= 1 for r in rewards]
    groups, targets = [], []
    for i, scheme in enumerate(SCHEMES):
        got = weigh_group(rewards, correct, WeightingConfig(scheme=scheme), answers)
        rows = tuple(Row((a,), float(w)) for a, w in zip(answers, got.weight, strict=True) if w)
        groups.append(Group(scheme, (2, 3 + i), rows))
        target = np.zeros(lab.VOCABULARY)
        np.add.at(target, answers, weigh_group(rewards, correct, WeightingConfig(scheme=scheme)).weight)
        targets.append(target / target.sum())
    model = lab.build_model("llama", dtype=torch.float32)
    config = StudentConfig(
        learning_rate=2e-2,
        epochs=400,
        groups_per_step=len(SCHEMES),
        checkpoint_every_steps=1000,
        warmup_frac=0.0,
    )
    trained = fit(model, groups, config, tmp_path, silent).model.eval()
    for group, target in zip(groups, targets, strict=True):
        p = trained(torch.tensor([group.prompt])).logits[0, -1].softmax(-1).detach().numpy()
        assert np.abs(p - target).max() < 0.01, group.prompt_id
    assert np.abs(targets[0] - targets[SCHEMES.index("uniform")]).max() > 0.2  # the schemes do differ


def small(lab, **changes):
    config = StudentConfig(**{
        "learning_rate": 1e-3, "epochs": 2, "groups_per_step": 2, "checkpoint_every_steps": 2, **changes,
    })  # fmt: skip
    return lab.build_model("llama", dtype=torch.float32), lab.build_groups(num_groups=6), config


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(lab, tmp_path, monkeypatch):
    model, groups, config = small(lab)
    real = trainer.WeightedTrainer.training_step

    def broken(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step == 4:
            next(model.parameters()).data[3, 3] = float("nan")
        return real(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(trainer.WeightedTrainer, "training_step", broken)
    with pytest.raises(StageError, match=r"training step 5: got a gradient of norm nan.*prompt-"):
        fit(model, groups, config, tmp_path, silent)
    monkeypatch.undo()
    assert checkpoints.last_good(tmp_path).name == "checkpoint-4"
    fresh = small(lab)[0]
    assert len(fit(fresh, groups, config, tmp_path, silent).log) == 6  # and goes on from there


def test_a_full_disk_while_checkpointing_keeps_the_last_one(lab, tmp_path, monkeypatch):
    model, groups, config = small(lab)
    publish = checkpoints.publish

    def full(staged: Path, folder: Path) -> Path:
        if staged.name == "checkpoint-4":
            raise OSError(errno.ENOSPC, "No space left on device")
        return publish(staged, folder)

    monkeypatch.setattr(checkpoints, "publish", full)
    with pytest.raises(StageError, match=r"step 4: .*No space left on device"):
        fit(model, groups, config, tmp_path, silent)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["checkpoint-2"]
    monkeypatch.undo()
    assert len(fit(small(lab)[0], groups, config, tmp_path, silent).log) == 6


@pytest.mark.parametrize("num_bytes", [10_000, 30_000])  # below the weights, below the optimizer
def test_files_that_may_grow_no_further_keep_the_last_checkpoint(lab, tmp_path, num_bytes):
    """The kernel refuses the writes, in safetensors' code and in torch's."""
    model, groups, config = small(lab)
    expected = fit(small(lab)[0], groups, config, tmp_path / "whole", silent)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event):
        if event.done == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))

    try:
        with pytest.raises(StageError, match=r"checkpoint of training step 4: .*free some space"):
            fit(model, groups, config, tmp_path / "b", fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["checkpoint-2"]
    assert checkpoints.last_good(tmp_path / "b") is not None
    assert fit(small(lab)[0], groups, config, tmp_path / "b", silent).log == expected.log


def test_a_file_system_that_is_really_full_keeps_the_last_checkpoint(lab, tmp_path):
    model, groups, config = small(lab)
    expected = fit(small(lab)[0], groups, config, tmp_path / "whole", silent)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=168k", "tmpfs", str(disk)]  # one checkpoint and a bit
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount")
    try:
        with pytest.raises(StageError, match=r"checkpoint of training step 4: .*free some space"):
            fit(model, groups, config, disk, silent)
        assert [p.name for p in disk.iterdir()] == ["checkpoint-2"]
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        assert fit(small(lab)[0], groups, config, disk, silent).log == expected.log
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_checkpoints_are_kept_by_count(lab, tmp_path):
    model, groups, config = small(lab, checkpoint_every_steps=1, keep_checkpoints=3)
    fit(model, groups, config, tmp_path, silent)
    assert [step for step, _ in checkpoints.numbered(tmp_path)] == [4, 5, 6]


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"batch_tokens": 16}])
def test_what_must_not_change_the_result(lab, tmp_path, changes):
    """Up to rounding: activations are recomputed, sums are taken in another order."""
    logs = []
    for i, extra in enumerate(({}, changes)):
        model, groups, config = small(lab, **extra)
        logs.append(fit(model, groups, config, tmp_path / str(i), silent).log)
    for a, b in zip(*logs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_bf16_trains_with_weights_in_fp32(lab, tmp_path):
    logs = []
    for dtype in ("float32", "bfloat16"):
        model, groups, config = small(lab, dtype=dtype, epochs=4, learning_rate=5e-3)
        fitted = fit(model, groups, config, tmp_path / dtype, silent)
        assert all(p.dtype == torch.float32 for p in fitted.model.parameters())
        logs.append([entry["loss"] for entry in fitted.log])
    assert logs[1][-1] < 0.9 * logs[1][0]
    assert logs[0] == pytest.approx(logs[1], rel=0.05)
    assert logs[0] != logs[1]  # or bf16 was not used at all


def some_groups(num_groups: int = 4) -> list[Group]:
    r = random.Random(0)
    return [
        Group(
            f"{i}", (5, 6, 7), tuple(Row(tuple(r.randrange(4, 90) for _ in range(6)), 0.5) for _ in range(2))
        )
        for i in range(num_groups)
    ]


def test_lora_trains_little_and_is_merged_into_a_model_that_loads(tmp_path):
    from transformers import AutoModelForCausalLM

    config = StudentConfig(model=TINY, lora_rank=4, learning_rate=1e-2, epochs=5, groups_per_step=4)
    model = load_student(config)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < trainable < 0.2 * sum(p.numel() for p in model.parameters())
    fitted = fit(model, some_groups(), config, tmp_path / "checkpoints", silent)
    assert fitted.shared
    assert fitted.fused
    assert fitted.log[-1]["loss"] < fitted.log[0]["loss"]
    ids = torch.tensor([[5, 6, 7, 8]])
    before = load_student(config.model_copy(update={"lora_rank": 0}))(ids).logits
    expected = fitted.model.eval()(ids).logits
    save_student(fitted.model, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert (loaded(ids).logits - expected).abs().max() < 1e-4
    assert (loaded(ids).logits - before).abs().max() > 1e-2


def test_lora_resumes_exactly(tmp_path, monkeypatch):
    config = StudentConfig(
        model=TINY, lora_rank=4, learning_rate=1e-2, epochs=6, groups_per_step=4, checkpoint_every_steps=2
    )

    def weights(folder, groups):
        torch.manual_seed(0)  # LoRA's matrices start random
        fitted = fit(load_student(config), groups, config, folder, silent)
        return {n: p.detach().clone() for n, p in fitted.model.named_parameters()}, fitted.log

    whole, log = weights(tmp_path / "a", some_groups())
    stop = {"at": 3}

    def interrupted(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step == stop["at"]:
            raise KeyboardInterrupt
        return real(self, model, inputs, num_items_in_batch)

    real = trainer.WeightedTrainer.training_step
    monkeypatch.setattr(trainer.WeightedTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "b", some_groups())
    monkeypatch.undo()
    resumed, resumed_log = weights(tmp_path / "b", some_groups())
    assert log == resumed_log
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_student_from_a_subset_of_layers(lab, tmp_path):
    from transformers import AutoModelForCausalLM

    whole = lab.build_model("qwen2", dtype=torch.float32, num_hidden_layers=4)
    layers = list(whole.model.layers)
    keep_layers(whole, [0, 3])
    assert list(whole.model.layers) == [layers[0], layers[3]]
    assert whole.config.num_hidden_layers == 2
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = whole(ids).logits  # with a cache, which is indexed by the layers' numbers
    assert (whole(ids, use_cache=False).logits - expected).abs().max() == 0
    save_student(whole, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (loaded(ids).logits - expected).abs().max() < 1e-6
    with pytest.raises(InputError, match="layers from 0 to 1"):
        keep_layers(whole, [0, 5])
    for bad in ([3, 0], [1, 1], [-1]):
        with pytest.raises(ValueError, match="ascending"):
            StudentConfig(keep_layers=bad)


@pytest.mark.parametrize("ignored", [{"sharding": "fsdp"}, {"lora_alpha": 8}])
def test_a_setting_that_would_be_ignored_is_refused(ignored):
    with pytest.raises(ValueError, match="would be ignored"):
        StudentConfig(**ignored)


def test_losses_reach_tensorboard(lab, tmp_path, monkeypatch):
    """In a folder that outlives the checkpoints."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    model, groups, config = small(lab, report_to=["tensorboard"], keep_checkpoints=1)
    log = fit(model, groups, config, tmp_path / "checkpoints", silent).log
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    told = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert told == [(entry["step"], pytest.approx(entry["loss"])) for entry in log]
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    fit(small(lab)[0], groups, config, tmp_path / "again", silent)
    assert list((tmp_path / "elsewhere").iterdir())
