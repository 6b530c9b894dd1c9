"""`transformers.Trainer` with our optimizer steps, loss and checkpoints.

One item of the data loader is one whole optimizer step, which `training_step` goes
through micro-batch by micro-batch. So accumulation, its denominator and the order of the
data are ours, while the optimizer, schedule, mixed precision, wrapping for several
processes and trackers stay the library's.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer

from advdistill_core.errors import StageError
from advdistill_core.training import checkpoints
from advdistill_core.training.batching import MicroBatch, Schedule
from advdistill_core.training.forward import model_inputs
from advdistill_core.training.negatives import Objective, with_extra
from advdistill_core.training.paired import PairedBatch, PairedSchedule, PairedStep
from advdistill_core.training.tree import Floats

History = list[dict[str, Any]]


class Steps(Dataset[list[MicroBatch]]):
    """A schedule as a data set whose items are optimizer steps."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, step: int) -> list[MicroBatch]:
        return self.schedule.micro_batches(step)


class WeightedTrainer(Trainer):
    """Trains a model that `forward.attach` has prepared.

    Args:
        schedule: this process's optimizer steps.
        shared: whether the model takes the tree layout.
        keep: how many checkpoints to keep.
        best_step: tells from the history whose checkpoint is kept whatever its age, if any.
        **kwargs: those of `transformers.Trainer`.
    """

    def __init__(
        self,
        schedule: Schedule,
        shared: bool,
        keep: int,
        best_step: Callable[[History], int | None] = lambda history: None,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset=Steps(schedule), **kwargs)
        self.schedule, self.shared, self.keep, self.best_step = schedule, shared, keep, best_step
        self._saving_to: Path | None = None

    # -- optimizer steps ----------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[list[MicroBatch]]:
        """Steps in order; not divided among processes, which each take their part."""
        return DataLoader(
            Steps(self.schedule),
            batch_size=1,
            collate_fn=_only,
            generator=torch.Generator(),  # the loader draws a seed; not from the global one
        )

    def training_step(  # type: ignore[override]
        self, model: Any, inputs: list[MicroBatch], num_items_in_batch: Any = None
    ) -> Tensor:
        """Accumulate the gradient of one optimizer step.

        Wrappers average gradients over processes while the denominator is already that of
        the whole step, so the loss is multiplied with their number.

        Returns:
            The step's loss; its mean over the processes is what is logged.
        """
        model.train()
        world_size = self.args.world_size
        total = torch.zeros((), device=self.args.device, dtype=torch.float64)
        for i, batch in enumerate(inputs):
            last = i == len(inputs) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss = model(**model_inputs(batch, self.args.device, self.shared))["loss"]
                self.accelerator.backward(loss * world_size)
            total += loss.detach() * world_size
        return total.float()

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm, once it is known to be a number: else no step is taken."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if self.accelerator.scaler is None and norm is not None:
            value = norm.item() if isinstance(norm, Tensor) else float(norm)
            if not value < float("inf"):
                step = self.state.global_step
                ids = [group.prompt_id for group in self.schedule.groups_of(step)]
                raise StageError(
                    f"training step {step + 1}: got a gradient of norm {value}, expected a finite one. The "
                    f"weights were left as they are. Its prompts: {', '.join(ids[:8])}. "
                    "Try a lower student.learning_rate, or student.dtype=float32."
                )
        return norm

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """Not counted: the denominator is in the coefficients."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the library's estimate does not fit our batches."""
        return 0

    def note(self, figures: dict[str, float]) -> None:
        """Add figures to the history and the trackers; the step's loss is still to come."""
        should_log = self.control.should_log
        self.log(figures)
        self.control.should_log = should_log

    def loss_here(self, batches: list[MicroBatch]) -> float:
        """The loss of micro-batches under the present weights, without dropout."""
        return float(self._loss_here(batches))

    def loss_of_all(self, batches: list[MicroBatch]) -> float:
        """The same, summed over the parts that all processes hold."""
        return float(add_up(self._loss_here(batches)))

    def _loss_here(self, batches: list[MicroBatch]) -> Tensor:
        model: Any = self.accelerator.unwrap_model(self.model)
        training = model.training
        model.eval()
        total = torch.zeros((), device=self.args.device, dtype=torch.float64)
        with torch.no_grad(), self.accelerator.autocast():
            for batch in batches:
                total += model(**model_inputs(batch, self.args.device, self.shared))["loss"]
        model.train(training)
        return total

    # -- checkpoints --------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving_to or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        """Write a checkpoint aside and move it into place when it is whole."""
        folder = Path(str(self.args.output_dir))
        self._saving_to = folder / "unfinished"
        try:
            if self.args.should_save:
                shutil.rmtree(self._saving_to, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoints.publish(self._saving_to / f"checkpoint-{self.state.global_step}", folder)
                checkpoints.keep_newest(folder, self.keep, self.best_step(self.state.log_history))
        except (OSError, SafetensorError, RuntimeError) as error:  # the last is how torch.save fails to write
            raise StageError(
                f"checkpoint of training step {self.state.global_step}: {error}. "
                "The one before is kept; free some space and run again to continue from it."
            ) from error
        finally:
            if self.args.should_save:
                shutil.rmtree(self._saving_to, ignore_errors=True)
            self._saving_to = None
        self.accelerator.wait_for_everyone()


class PairedTrainer(WeightedTrainer):
    """Trains on right and wrong responses; see `negatives`."""

    schedule: PairedSchedule
    objective: Objective

    def __init__(self, objective: Objective, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective = objective

    def get_train_dataloader(self) -> DataLoader[Any]:
        """As above, with the places of the rows."""
        return DataLoader(
            _PairedSteps(self.schedule), batch_size=1, collate_fn=_only, generator=torch.Generator()
        )

    def training_step(  # type: ignore[override]
        self, model: Any, inputs: PairedStep, num_items_in_batch: Any = None
    ) -> Tensor:
        """Accumulate the gradient of one optimizer step.

        Returns:
            The step's loss; its mean over the processes is what is logged.
        """
        if not any(row.negative for group in inputs.groups for row in group.rows):
            return super().training_step(model, [b.batch for b in inputs.batches])
        model.train()
        nll = self._look(model, inputs.batches)
        first = self.args.process_index == 0
        extra = self.objective.extra(inputs, nll, self._add_up, first)
        batches = [with_extra(b, c) for b, c in zip(inputs.batches, extra.coefficients, strict=True)]
        return super().training_step(model, batches) + extra.shift * self.args.world_size

    def _look(self, model: Any, batches: list[PairedBatch]) -> list[Floats | None]:
        """Each label's negative log-likelihood, under the dropout that the gradient will see."""
        if not self.objective.looks_first:
            return [None] * len(batches)
        found: list[Floats | None] = []
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            for batch in batches:
                inputs = model_inputs(batch.batch, self.args.device, self.shared)
                inputs["layout"].per_label = True
                found.append(model(**inputs)["nll"].double().cpu().numpy())
        return found

    def _add_up(self, own: Floats) -> Floats:
        total: Floats = add_up(torch.from_numpy(own).to(self.args.device)).cpu().numpy()
        return np.asarray(total)


class _PairedSteps(Dataset[PairedStep]):
    def __init__(self, schedule: PairedSchedule) -> None:
        self.schedule = schedule

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, step: int) -> PairedStep:
        return self.schedule.paired(step)


def add_up(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor


def _only(items: list[Any]) -> Any:
    return items[0]
