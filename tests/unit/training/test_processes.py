"""Several processes by `accelerate launch` (gloo on CPU) against one."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from advdistill_core import models
from advdistill_core.config import RewardsConfig, StudentConfig
from advdistill_core.errors import StageError
from advdistill_core.models.tiny import NAME as TINY
from advdistill_core.progress import silent
from advdistill_core.training import checkpoints
from advdistill_core.training.fit import fit
from advdistill_core.training.heldout import HeldOut, Question
from advdistill_core.training.launch import fit_in_processes, launch_command
from advdistill_core.training.rows import Group, Row
from advdistill_core.training.run import Job, train
from advdistill_core.training.student import load_student, save_student

CONFIG = StudentConfig(
    model=TINY, device="cpu", learning_rate=1e-3, epochs=2, groups_per_step=3, warmup_frac=0.0,
    lr_schedule="constant", batch_tokens=24, checkpoint_every_steps=2,
)  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())


def one(groups, folder: Path, config=CONFIG) -> tuple[list, dict]:
    fitted = fit(load_student(config), groups, config, folder / "checkpoints", silent)
    save_student(fitted.model, folder / "model")
    return fitted.log, weights(folder / "model")


def assert_equal_training(got, expected):
    """The same losses and steps; sums are only taken in another order."""
    for mine, theirs in zip(got[0], expected[0], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    before = weights_of_the_start()
    for name, tensor in expected[1].items():
        moved = (tensor - before[name]).norm()
        assert (got[1][name] - tensor).norm() <= 0.01 * moved, name


def weights_of_the_start() -> dict[str, torch.Tensor]:
    return dict(models.load_model(TINY).named_parameters())


def test_two_processes_train_the_same_student_as_one(lab, tmp_path):
    """Rows of unequal length, steps with an odd number of micro-batches and a last step
    of one group, so that one process has less to do than the other, or nothing."""
    groups = lab.build_groups(num_groups=7)
    expected = one(groups, tmp_path / "one")
    events = []
    two = CONFIG.model_copy(update={"num_processes": 2})
    (tmp_path / "two").mkdir()
    result = fit_in_processes(Job(groups), two, tmp_path / "two" / "job", events.append)
    assert [event.done for event in events] == list(range(1, 7))
    assert result["shared"]
    assert result["world_size"] == 2
    assert_equal_training((result["log"], weights(tmp_path / "two" / "job" / "model")), expected)


def test_what_a_process_raises_arrives(lab, tmp_path):
    """And a process that cannot start tells how it ended."""
    bad = CONFIG.model_copy(update={"num_processes": 2, "model": str(tmp_path / "nowhere")})
    with pytest.raises((StageError, ValueError), match="nowhere"):
        fit_in_processes(Job(lab.build_groups(num_groups=2)), bad, tmp_path / "job", silent)


@pytest.mark.slow
def test_fsdp_trains_the_same_student_as_one(lab, tmp_path):
    groups = lab.build_groups(num_groups=7)
    expected = one(groups, tmp_path / "one")
    config = CONFIG.model_copy(update={"num_processes": 2, "sharding": "fsdp"})
    (tmp_path / "two").mkdir()
    result = fit_in_processes(Job(groups), config, tmp_path / "two" / "job", silent)
    assert_equal_training((result["log"], weights(tmp_path / "two" / "job" / "model")), expected)


def close_to(value):
    return pytest.approx(value, rel=1e-4) if isinstance(value, float) else value


@pytest.mark.slow
def test_two_processes_agree_with_one_on_evaluations_and_on_wrong_responses(lab, tmp_path):
    """Margin: what a pair of responses adds is known only from both processes together."""
    groups = lab.build_groups(num_groups=7)
    paired = [
        replace(g, rows=(*g.rows, *(Row((28, *r.completion), 0.0, 0.5) for r in g.rows))) for g in groups
    ]
    held = HeldOut(
        tuple(Question(q, q, "math", "7", (), "test") for q in ("1+6", "2+5")),
        tuple(lab.build_groups(5, 2)),
        RewardsConfig(),
    )
    job = Job(groups, paired, held)
    config = StudentConfig.model_validate(
        CONFIG.model_dump(exclude={"early_stopping", "negatives"})
        | {
            "early_stopping": {"every_steps": 2, "max_new_tokens": 3},
            "negatives": {"kind": "margin", "learning_rate": 1e-3, "margin": 5.0, "max_drop": 50.0},
        }
    )
    tokenizer = models.load_tokenizer(TINY)
    expected = train(load_student(config), job, config, tmp_path / "checkpoints", silent, tokenizer)
    save_student(expected.model, tmp_path / "one")
    two = config.model_copy(update={"num_processes": 2})
    (tmp_path / "two").mkdir()
    result = fit_in_processes(job, two, tmp_path / "two" / "job", silent)
    assert_equal_training(
        (result["log"], weights(tmp_path / "two" / "job" / "model")),
        (expected.log, weights(tmp_path / "one")),
    )
    for topic, told in expected.notes.items():
        for name, value in told.items():
            assert result["notes"][topic][name] == close_to(value), name
    for mine, theirs in zip(result["log"], expected.log, strict=True):
        for name in ("heldout_loss", "heldout_accuracy", "chosen_log_prob"):
            assert mine.get(name) == close_to(theirs.get(name))


@pytest.mark.slow
def test_a_stop_request_reaches_all_processes_which_then_continue(lab, tmp_path):
    groups = lab.build_groups(num_groups=7)
    config = CONFIG.model_copy(
        update={"num_processes": 2, "checkpoint_every_steps": 1000, "epochs": 100, "learning_rate": 1e-5}
    )
    (tmp_path / "two").mkdir()

    def stop_early(event):
        if event.done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StageError, match=r"asked to stop after step \d+ of 300"):
        fit_in_processes(Job(groups), config, tmp_path / "two" / "job", stop_early)
    assert checkpoints.last_good(tmp_path / "two" / "checkpoints") is not None
    events = []
    result = fit_in_processes(Job(groups), config, tmp_path / "two" / "job", events.append)
    assert 2 < events[0].done < 300
    assert [entry["step"] for entry in result["log"]] == list(range(1, 301))


def test_groups_survive_the_way_to_the_processes(lab):
    paired = [Group("p", (1,), (Row((2, 3), 0.1 + 0.2), Row((2, 4), 0.0, 1 / 3, 1)))]
    question = Question("q", "1+1", "math", "2", ("a", "b"), "test")
    held = HeldOut((question,), tuple(lab.build_groups(num_groups=1)), RewardsConfig(timeout_s=3.5))
    for job in (Job(lab.build_groups(), paired, held), Job([])):
        again = Job.from_json(job.to_json())
        assert (list(again.groups), list(again.paired)) == (list(job.groups), list(job.paired))
        assert again.heldout == job.heldout


def test_the_command_asks_for_fsdp_only_when_told(tmp_path):
    two = CONFIG.model_copy(update={"num_processes": 2})
    assert "--use_fsdp" not in launch_command(two, tmp_path)
    assert "--use_fsdp" in launch_command(two.model_copy(update={"sharding": "fsdp"}), tmp_path)
