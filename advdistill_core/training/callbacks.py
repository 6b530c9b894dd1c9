"""What happens beside the training loop: progress, and stopping on request."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from advdistill_core.progress import Event, Progress
from advdistill_core.training.batching import Schedule


class ShowProgress(TrainerCallback):
    """Sends an event after every optimizer step."""

    def __init__(self, schedule: Schedule, progress: Progress) -> None:
        self.schedule, self.progress = schedule, progress
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
                done=state.global_step,
                total=state.max_steps,
                unit="steps",
                tokens=self.tokens,
                figures=figures,
            )
        )


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
