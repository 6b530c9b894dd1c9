"""Evaluation in training on prompts kept back, and stopping by it."""

import random

import pytest
import torch
from safetensors.torch import load_file

from advdistill_core.config import DistillConfig, RewardsConfig, StudentConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.models.tiny import NAME as TINY
from advdistill_core.progress import silent
from advdistill_core.stages import TRAIN, plan_stage, run_stage
from advdistill_core.store import Store, tables
from advdistill_core.training import callbacks, checkpoints, history
from advdistill_core.training.heldout import Examiner, HeldOut, kept_back
from advdistill_core.training.run import Job, train

EARLY = {"every_steps": 2, "num_prompts": 4, "patience": 2, "max_new_tokens": 4}


def write(store, name, rows, prefix="part"):
    out = store.begin(name, "1", "f", name)
    out.write_tables([tables.from_rows(rows, tables.SCHEMAS[name])], prefix)
    return out.commit({}, {})


def inputs_of(store, count=12):
    """Questions that are all answered by 7, which is learned in a few steps."""
    questions = [f"{i}+{7 - i}" for i in range(count)]
    prompts = [
        {
            "prompt_id": q, "task": "math", "messages": [{"role": "user", "content": q}],
            "reference_answer": "7", "choices": [], "split": "train", "source": "test",
        }
        for q in questions
    ]  # fmt: skip
    responses = [
        {
            "prompt_id": q, "sample_id": 0, "text": "7", "finish_reason": "stop", "num_tokens": 2,
            "teacher": "t", "seed": 0, "request_hash": "h",
        }
        for q in questions
    ]  # fmt: skip
    weights = [
        {
            "prompt_id": q, "sample_id": 0, "advantage": 0.0, "weight": 1.0, "prompt_weight": 1.0,
            "merged_into": None,
        }
        for q in questions
    ]  # fmt: skip
    return {
        "prompts": write(store, "prompts", prompts, "train"),
        "responses": write(store, "responses", responses),
        "weights": write(store, "weights", weights),
    }


def config(tmp_path, early=EARLY, **student):
    student = {"model": TINY, "groups_per_step": 4, "epochs": 30, "learning_rate": 1e-3, **student}
    return DistillConfig(student={**student, "early_stopping": early}, storage={"root": str(tmp_path)})


def test_training_stops_when_the_accuracy_has_come_and_keeps_the_best(tmp_path):
    store, events = Store(str(tmp_path)), []
    ref = run_stage(TRAIN, config(tmp_path), inputs_of(store), store, progress=events.append)
    artifact = store.open(ref)
    told = artifact.manifest.metrics["early_stopping"]
    log = artifact.table("train_log").to_pylist()
    accuracy = {row["step"]: row["heldout_accuracy"] for row in log if row["heldout_accuracy"] is not None}
    assert list(accuracy) == list(range(2, told["stopped_at"] + 1, 2))
    assert accuracy[2] < 1 == told["best"] == accuracy[told["best_step"]]
    assert told["stopped_at"] == told["best_step"] + 4 < 60  # two evaluations without a better one
    assert told["num_kept_back"] == 4
    assert artifact.manifest.metrics["num_groups"] == 8  # the kept ones are not trained on
    losses = [row["heldout_loss"] for row in log if row["heldout_loss"] is not None]
    assert len(losses) == len(accuracy)
    assert losses[-1] < losses[0]
    assert any("nothing better came" in e.message for e in events)
    assert [e.done for e in events if e.total] == list(range(1, told["stopped_at"] + 1))


def test_the_prompts_kept_back_are_a_matter_of_their_ids_and_the_seed():
    student = StudentConfig(early_stopping={**EARLY, "num_prompts": 3})
    ids = [f"p{i}" for i in range(20)]
    chosen = kept_back(ids, student)
    assert len(chosen) == 3
    assert chosen == kept_back(random.Random(0).sample(ids, 20), student)
    assert chosen != kept_back(ids, student.model_copy(update={"seed": 1}))
    assert kept_back(ids, StudentConfig()) == frozenset()
    with pytest.raises(InputError, match=r"num_prompts: got 3, expected fewer than the 3"):
        kept_back(ids[:3], student)


def test_what_decides_the_verdict_is_part_of_the_identity(tmp_path):
    store = Store(str(tmp_path))
    inputs = inputs_of(store)
    boxed = {"rewards": RewardsConfig(policy={"require_boxed": True})}
    for early, differs in ((EARLY, True), ({"every_steps": 2, "metric": "loss"}, False), ({}, False)):
        with_early = config(tmp_path, early)
        plans = [
            plan_stage(TRAIN, c, inputs, store) for c in (with_early, with_early.model_copy(update=boxed))
        ]
        assert (plans[0].fingerprint != plans[1].fingerprint) == differs


def small(lab, **early):
    student = StudentConfig(
        learning_rate=5e-2, epochs=6, groups_per_step=2, checkpoint_every_steps=100, max_seq_tokens=32,
        early_stopping={"every_steps": 3, "metric": "loss", "patience": 0, **early},
    )  # fmt: skip
    held = HeldOut((), tuple(lab.build_groups(5, 3)), RewardsConfig())
    return Job(lab.build_groups(num_groups=6), (), held), student


def test_the_best_checkpoint_is_kept_and_taken(lab, tmp_path):
    """The loss on prompts kept back rises again long before the end."""
    job, student = small(lab)
    student = student.model_copy(update={"checkpoint_every_steps": 2, "keep_checkpoints": 1})
    best = train(lab.build_model("llama", dtype=torch.float32), job, student, tmp_path / "a", silent)
    told = best.notes["early_stopping"]
    assert told["best_step"] < 12
    assert told["stopped_at"] is None
    steps = [step for step, _ in checkpoints.numbered(tmp_path / "a")]
    assert steps == [told["best_step"], 18]
    kept = load_file(tmp_path / "a" / f"checkpoint-{told['best_step']}" / "model.safetensors")
    assert all(torch.equal(kept[n], p) for n, p in best.model.named_parameters())
    # finished: the same again without a step, and the last one where that is asked for
    events = []
    again = train(lab.build_model("llama", dtype=torch.float32), job, student, tmp_path / "a", events.append)
    assert not events
    assert (again.log, again.notes) == (best.log, best.notes)
    assert all(torch.equal(kept[n], p) for n, p in again.model.named_parameters())
    early = student.early_stopping.model_copy(update={"restore_best": False})
    last = student.model_copy(update={"early_stopping": early})
    done = train(lab.build_model("llama", dtype=torch.float32), job, last, tmp_path / "b", silent)
    assert not torch.equal(kept["model.norm.weight"], done.model.get_parameter("model.norm.weight"))


def test_looking_changes_nothing_of_the_training(lab, tmp_path):
    """Neither the generators' state nor the losses; dropout is on."""
    job, student = small(lab, restore_best=False)
    off = student.model_copy(update={"early_stopping": type(student.early_stopping)()})
    logs = []
    for name, chosen, work in (("on", student, job), ("off", off, Job(job.groups))):
        model = lab.build_model("llama", dtype=torch.float32, attention_dropout=0.2)
        logs.append(train(model, work, chosen, tmp_path / name, silent).log)
    assert [e["loss"] for e in logs[0]] == [e["loss"] for e in logs[1]]


def test_a_stop_request_during_an_evaluation_ends_it_and_the_training_continues_exactly(
    lab, tmp_path, monkeypatch
):
    job, student = small(lab)
    student = student.model_copy(update={"checkpoint_every_steps": 2})
    whole = train(lab.build_model("llama", dtype=torch.float32), job, student, tmp_path / "a", silent)
    monkeypatch.setattr(Examiner, "_measure", lambda self, trainer: None)  # as if asked to stop in it
    with pytest.raises(StageError, match="asked to stop after step 3 of 18"):
        train(lab.build_model("llama", dtype=torch.float32), job, student, tmp_path / "b", silent)
    assert checkpoints.last_good(tmp_path / "b").name == "checkpoint-2"
    monkeypatch.undo()
    rest = train(lab.build_model("llama", dtype=torch.float32), job, student, tmp_path / "b", silent)
    assert (rest.log, rest.notes) == (whole.log, whole.notes)


def test_best_and_patience_by_hand():
    settings = StudentConfig(early_stopping={"every_steps": 2, "patience": 2}).early_stopping

    def entries(*values):
        return [{"step": 2 * i + 2, history.ACCURACY: v} for i, v in enumerate(values)]

    assert history.best_step([], settings) is None
    assert not history.out_of_patience([], settings)
    assert history.best_step(entries(0.1, 0.3, 0.3), settings) == 4  # the first of equals
    assert not history.out_of_patience(entries(0.1, 0.3, 0.3), settings)
    assert history.out_of_patience(entries(0.1, 0.3, 0.3, 0.2), settings)
    assert not history.out_of_patience(entries(0.1, 0.3, 0.2, 0.4), settings)
    by_loss = settings.model_copy(update={"metric": "loss"})
    losses = [{"step": i, history.LOSS: v} for i, v in enumerate((3.0, 1.0, 2.0), 1)]
    assert history.best_step(losses, by_loss) == 2
    never = settings.model_copy(update={"patience": 0})
    assert not history.out_of_patience(entries(0.5, 0.1, 0.1, 0.1), never)
    assert callbacks.EarlyStopping(settings, dict, lambda figures: None).left_off is False
