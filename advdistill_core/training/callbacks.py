"""What happens beside the training loop: progress, looks at the student, reasons to stop."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from advdistill_core.config.student import EarlyStoppingConfig, NegativesConfig
from advdistill_core.progress import Event, Progress
from advdistill_core.training import history
from advdistill_core.training.batching import Schedule

Note = Callable[[dict[str, float]], None]


class ShowProgress(TrainerCallback):
    """Sends an event after every optimizer step.

    Args:
        around: optimizer steps of the stages before this one, and of those after it.
    """

    def __init__(self, schedule: Schedule, progress: Progress, around: tuple[int, int] = (0, 0)) -> None:
        self.schedule, self.progress, self.around = schedule, progress, around
        self.tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens = sum(self.schedule.completion_tokens_of(step) for step in range(state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        self.tokens += self.schedule.completion_tokens_of(state.global_step - 1)
        figures = {name: float(logs[name]) for name in ("loss", "learning_rate", "grad_norm") if name in logs}
        self.progress(
            Event(
                stage="train",
                done=self.around[0] + state.global_step,
                total=self.around[0] + state.max_steps + self.around[1],
                unit="steps",
                tokens=self.tokens,
                figures=figures,
            )
        )


def tensorboard() -> TrainerCallback:
    """The library's callback, writing where it is found afterwards.

    By itself it writes beside the checkpoints, which are removed in the end.
    """
    from transformers.integrations.integration_utils import TensorBoardCallback, default_logdir

    callback: Any = TensorBoardCallback()
    callback.logging_dir = callback.logging_dir or default_logdir()
    found: TrainerCallback = callback
    return found


class StopOnRequest(TrainerCallback):
    """On SIGTERM: a checkpoint after the step in hand, then the end of training.

    Used as a context manager round the training; outside the main thread, where no
    signal arrives, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> "StopOnRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._anyone(args) and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def _anyone(self, args: Any) -> bool:
        """Whether any process was asked: all must stop after the same step."""
        if args.world_size == 1:
            return self.requested
        asked = torch.tensor(int(self.requested), device=args.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked)


class EarlyStopping(TrainerCallback):
    """Evaluates now and then; stops when nothing better came for a while.

    What it knows is the training's history, which is part of every checkpoint, so a resumed
    training decides as the uninterrupted one.

    Args:
        evaluate: measures the student; None when it was asked to stop, and left off.
        note: adds figures to the history.
    """

    def __init__(
        self, config: EarlyStoppingConfig, evaluate: Callable[[], dict[str, float] | None], note: Note
    ) -> None:
        self.config, self.evaluate, self.note = config, evaluate, note
        self.left_off = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.config.every_steps and state.global_step < state.max_steps:
            return
        figures = self.evaluate()
        if figures is None:  # a checkpoint of now would lack this evaluation
            self.left_off = True
            control.should_save, control.should_training_stop = False, True
            return
        self.note(figures)
        if history.best_step(state.log_history, self.config) == state.global_step:
            control.should_save = True
        if history.out_of_patience(state.log_history, self.config):
            control.should_save = control.should_training_stop = True


class Guard(TrainerCallback):
    """Stops the second stage when the right responses lose too much of their probability.

    Args:
        start: their mean log-probability per token before the stage.
        measure: the same now.
        note: adds figures to the history.
    """

    def __init__(
        self, config: NegativesConfig, start: float, measure: Callable[[], float], note: Note
    ) -> None:
        self.config, self.start, self.measure, self.note = config, start, measure, note
        self.stopped_at: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.config.guard_every_steps and state.global_step < state.max_steps:
            return
        now = self.measure()
        if now >= self.start - self.config.max_drop:  # not so where it is no number
            self.note({history.CHOSEN: now})
            control.should_save = True
            return
        self.note({history.REFUSED: now})
        self.stopped_at = state.global_step
        control.should_save, control.should_training_stop = False, True
