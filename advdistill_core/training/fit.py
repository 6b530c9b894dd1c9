"""Training one student in this process (one of several, or the only one)."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.models.home import no_bars
from advdistill_core.progress import Progress
from advdistill_core.training import checkpoints
from advdistill_core.training.batching import Schedule
from advdistill_core.training.rows import Group


@dataclass(frozen=True)
class Fitted:
    """What a finished training leaves.

    Args:
        model: the trained model, as it was before `attach`.
        log: per optimizer step its loss, learning rate, gradient norm and tokens.
        shared, fused: which of the fast paths the model allowed.
    state: the gathered weights, when they were divided among processes.
    """

    model: Any
    log: list[dict[str, float]]
    shared: bool
    fused: bool
    state: dict[str, Any] | None = None


def fit(
    model: Any, groups: Sequence[Group], config: StudentConfig, folder: Path, progress: Progress
) -> Fitted:
    """Train a model on weighted groups, continuing from the last good checkpoint.

    Args:
        model: with float32 weights, on its device.
        groups: at least one, each with at least one row.
        folder: for checkpoints.

    Raises:
        StageError: a gradient is not finite, a checkpoint cannot be written, or the
            training was asked to stop; what was reached is kept.
    """
    import torch
    from transformers import PrinterCallback

    from advdistill_core.training.callbacks import ShowProgress, StopOnRequest
    from advdistill_core.training.forward import attach, causal_lm, detach, probe
    from advdistill_core.training.trainer import WeightedTrainer

    longest = max(len(g.prompt) + len(row.completion) for g in groups for row in g.rows)
    shared, fused = probe(model, longest)
    attention = causal_lm(model).config._attn_implementation
    arguments = training_arguments(config, groups, folder, model.device)
    schedule = schedule_of(config, groups, shared, arguments.process_index, arguments.world_size)
    torch.manual_seed(config.seed)
    attach(model, shared, fused)
    stop = StopOnRequest()
    trainer = WeightedTrainer(
        schedule,
        shared,
        config.keep_checkpoints,
        model=model,
        args=arguments,
        callbacks=[ShowProgress(schedule, progress), stop],
    )
    trainer.remove_callback(PrinterCallback)
    good = checkpoints.last_good(folder)
    with stop, no_bars():
        trainer.train(resume_from_checkpoint=None if good is None else str(good))
    if trainer.state.global_step < len(schedule):
        raise StageError(
            f"training was asked to stop after step {trainer.state.global_step} of {len(schedule)}; "
            "the same command continues from there."
        )
    trained = trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    detach(trained, attention)
    return Fitted(trained, train_log(trainer.state.log_history, schedule), shared, fused, state)


def schedule_of(
    config: StudentConfig, groups: Sequence[Group], shared: bool = True, rank: int = 0, world_size: int = 1
) -> Schedule:
    """The optimizer steps that a configuration asks for."""
    return Schedule(
        groups=groups,
        groups_per_step=config.groups_per_step,
        epochs=config.epochs,
        seed=config.seed,
        reduction=config.reduction,
        max_tokens=config.max_seq_tokens,
        batch_tokens=config.batch_tokens,
        share=shared,
        rank=rank,
        world_size=world_size,
        max_steps=config.max_steps,
    )


def training_arguments(config: StudentConfig, groups: Sequence[Group], folder: Path, device: Any) -> Any:
    """The Trainer's arguments; one of its epochs is the whole training."""
    from transformers import TrainingArguments

    for tracker in config.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise InputError(
                "student.report_to", tracker, "an installed tracker", "Install advdistill[tracking]."
            )
    steps = len(schedule_of(config, groups))
    half = {"bfloat16": "bf16", "float16": "fp16"}.get(config.dtype)
    if config.dtype == "auto" and device.type == "cuda":
        half = "bf16"
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(config.lr_schedule, config.lr_schedule),
        warmup_steps=round(config.warmup_frac * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch",
        bf16=half == "bf16",
        fp16=half == "fp16",
        use_cpu=device.type == "cpu",
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.checkpoint_every_steps,
        ddp_find_unused_parameters=False,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if config.gradient_checkpointing else None,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=list(config.report_to),
    )


def train_log(history: list[dict[str, Any]], schedule: Schedule) -> list[dict[str, float]]:
    """The log of every optimizer step, also of those before a resumption."""
    return [
        {
            "step": entry["step"],
            "loss": entry["loss"],
            "learning_rate": entry["learning_rate"],
            "grad_norm": entry["grad_norm"],
            "completion_tokens": schedule.completion_tokens_of(entry["step"] - 1),
        }
        for entry in history
        if "loss" in entry
    ]
