"""Training one student in this process (one of several, or the only one)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import StageError
from advdistill_core.models.home import no_bars
from advdistill_core.progress import Progress
from advdistill_core.training import checkpoints, history
from advdistill_core.training.arguments import schedule_of, training_arguments
from advdistill_core.training.batching import MicroBatch, Schedule
from advdistill_core.training.heldout import HeldOut
from advdistill_core.training.negatives import chosen_only, objective_of
from advdistill_core.training.rows import Group

_GUARDED_GROUPS = 64


@dataclass(frozen=True)
class Fitted:
    """What a finished training leaves.

    Args:
        model: the trained model, as it was before `attach`.
        log: per optimizer step its loss, learning rate, gradient norm and tokens.
        shared, fused: which of the fast paths the model allowed.
        state: the gathered weights, when they were divided among processes.
        checkpoint: the one that holds the model's weights.
        notes: what else is worth recording, by topic.
    """

    model: Any
    log: list[dict[str, Any]]
    shared: bool
    fused: bool
    state: dict[str, Any] | None = None
    checkpoint: Path | None = None
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Second:
    """What makes a training the second stage.

    Args:
        before: optimizer steps of the first.
        start: the checkpoint whose weights it starts from.
    """

    before: int
    start: Path


def fit(
    model: Any,
    groups: Sequence[Group],
    config: StudentConfig,
    folder: Path,
    progress: Progress,
    *,
    heldout: HeldOut | None = None,
    tokenizer: Any = None,
    second: Second | None = None,
    steps_after: int = 0,
) -> Fitted:
    """Train a model on weighted groups, continuing from the last good checkpoint.

    Args:
        model: with float32 weights, on its device.
        groups: at least one, each with at least one row.
        folder: for checkpoints.
        heldout: what the student is measured on meanwhile; needs the `tokenizer`.
        second: train on right and wrong responses, as `config.negatives` says.
        steps_after: optimizer steps of the stage after this one, for the progress.

    Raises:
        StageError: a gradient is not finite, a checkpoint cannot be written, or the
            training was asked to stop; what was reached is kept.
    """
    from advdistill_core.training.forward import attach, causal_lm, detach, probe

    longest = max(len(g.prompt) + len(row.completion) for g in groups for row in g.rows)
    shared, fused = probe(model, longest)
    attention = causal_lm(model).config._attn_implementation
    attach(model, shared, fused)
    session = _Session(model, groups, config, folder, shared, second)
    session.watch(progress, heldout, tokenizer, attention, steps_after)
    with no_bars():
        session.train()
    checkpoint = session.settle()
    trainer = session.trainer
    trainer.accelerator.wait_for_everyone()  # with reading checkpoints, some of which now go
    if second is None and steps_after and checkpoint and trainer.args.should_save:
        checkpoints.keep_newest(folder, 1, int(checkpoint.name.rpartition("-")[2]))
    trained = trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    detach(trained, attention)
    return Fitted(trained, session.log(), shared, fused, state, checkpoint, session.notes())


class _Session:
    """A trainer with what looks after it, through one training."""

    def __init__(
        self,
        model: Any,
        groups: Sequence[Group],
        config: StudentConfig,
        folder: Path,
        shared: bool,
        second: Second | None,
    ) -> None:
        import torch
        from transformers import PrinterCallback

        from advdistill_core.training.callbacks import StopOnRequest
        from advdistill_core.training.trainer import PairedTrainer, WeightedTrainer

        self.config, self.folder, self.second = config, folder, second
        arguments = training_arguments(config, groups, folder, model.device)
        place = (arguments.process_index, arguments.world_size)
        self.schedule = schedule_of(config, groups, shared, *place, paired=second is not None)
        torch.manual_seed(config.seed)
        common = {
            "schedule": self.schedule, "shared": shared, "keep": config.keep_checkpoints,
            "best_step": self._best_step, "model": model, "args": arguments,
        }  # fmt: skip
        self.trainer: Any = (
            WeightedTrainer(**common) if second is None else PairedTrainer(objective_of(config), **common)
        )
        self.trainer.remove_callback(PrinterCallback)
        self.stop = StopOnRequest()
        self.early: Any = None
        self.guard: Any = None

    def watch(
        self, progress: Progress, heldout: HeldOut | None, tokenizer: Any, attention: str, steps_after: int
    ) -> None:
        """Add the callbacks; the one that ends the training on request is the last."""
        from advdistill_core.training.callbacks import EarlyStopping, Guard, ShowProgress, tensorboard
        from advdistill_core.training.heldout import Examiner

        trainer, config = self.trainer, self.config
        before = self.second.before if self.second else 0
        trainer.add_callback(ShowProgress(self.schedule, progress, (before, steps_after)))
        if "tensorboard" in config.report_to:
            trainer.add_callback(tensorboard())
        if heldout is not None:
            examiner = Examiner(heldout, config, tokenizer, attention, lambda: self.stop.requested)
            self.early = EarlyStopping(config.early_stopping, lambda: examiner(trainer), trainer.note)
            trainer.add_callback(self.early)
        if self.second:
            guarded = _first_groups(self.schedule, _GUARDED_GROUPS)

            def chosen() -> float:
                return -float(trainer.loss_of_all(guarded))

            self.guard = Guard(config.negatives, chosen(), chosen, trainer.note)
            trainer.add_callback(self.guard)
        trainer.add_callback(self.stop)

    def train(self) -> None:
        """Train from the last good checkpoint; one of a finished training is only loaded."""
        from transformers import TrainerState

        good = checkpoints.last_good(self.folder)
        if good is not None and not self.trainer.is_fsdp_enabled:
            state = TrainerState.load_from_json(str(good / "trainer_state.json"))
            if self._is_finished(state):
                self.trainer._load_from_checkpoint(str(good))
                self.trainer.state = state
                return
        with self.stop:
            self.trainer.train(resume_from_checkpoint=None if good is None else str(good))

    def settle(self) -> Path | None:
        """Take the weights that are wanted: the last, the best, or those before a collapse.

        Raises:
            StageError: the training was asked to stop before its end.
        """
        state = self.trainer.state
        if self.guard is not None and self.guard.stopped_at is not None:
            return self._go_back(history.last_passed(state.log_history))
        if not self._is_finished(state) or (self.early is not None and self.early.left_off):
            raise StageError(
                f"training was asked to stop after step {state.global_step} of {len(self.schedule)}; "
                "the same command continues from there."
            )
        best = self._best_step(state.log_history)
        if self.early is not None and self.config.early_stopping.restore_best and best != state.global_step:
            return self._go_back(best)
        return self._checkpoint(state.global_step)

    def log(self) -> list[dict[str, Any]]:
        """Per optimizer step what was measured."""
        stage, before = (2, self.second.before) if self.second else (1, 0)
        return history.train_log(self.trainer.state.log_history, self.schedule, stage, before)

    def notes(self) -> dict[str, dict[str, Any]]:
        """How the early stopping and the guard decided."""
        state, found = self.trainer.state, {}
        if self.early is not None:
            values = dict(history.evaluations(state.log_history, self.config.early_stopping))
            best = self._best_step(state.log_history)
            found["early_stopping"] = {
                "metric": self.config.early_stopping.metric,
                "num_evaluations": len(values),
                "best_step": best,
                "best": None if best is None else abs(values[best]),
                "stopped_at": state.global_step if state.global_step < len(self.schedule) else None,
            }
        if self.guard is not None and self.second is not None:
            looks = [e[history.CHOSEN] for e in state.log_history if history.CHOSEN in e]
            stopped, kept = self.guard.stopped_at, history.last_passed(state.log_history)
            found["negatives"] = {
                "kind": self.config.negatives.kind,
                "num_groups": len(self.schedule.groups),
                "num_steps": state.global_step,
                "chosen_log_prob_start": self.guard.start,
                "chosen_log_prob_end": looks[-1] if looks else self.guard.start,
                "guard_stopped_at": None if stopped is None else self.second.before + stopped,
                "kept_step": self.second.before + (kept or 0),
            }
        return found

    def _best_step(self, log: history.History) -> int | None:
        """Whose checkpoint is kept whatever its age."""
        return history.last_passed(log) if self.second else history.best_step(log, self.config.early_stopping)

    def _is_finished(self, state: Any) -> bool:
        if self.early is not None and history.out_of_patience(state.log_history, self.config.early_stopping):
            return True
        return bool(state.global_step >= len(self.schedule))

    def _go_back(self, step: int | None) -> Path | None:
        """Load the weights of a step; without one, those that the stage started from."""
        path = self.second.start if self.second and not step else self._checkpoint(step)
        self.trainer._load_from_checkpoint(str(path))
        return path

    def _checkpoint(self, step: int | None) -> Path:
        return self.folder / f"checkpoint-{step}"


def _first_groups(schedule: Schedule, count: int) -> list[MicroBatch]:
    """The right responses of the first groups, as one step; this process's part."""
    steps = range(min(schedule.steps_per_epoch, count))
    groups = chosen_only([g for step in steps for g in schedule.groups_of(step)][:count])
    whole = replace(
        schedule, groups=groups, groups_per_step=len(groups), reduction="token_mean", max_steps=0, _orders={}
    )
    return whole.micro_batches(0)
