"""What a configuration means to the schedule and to the library's Trainer."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import InputError
from advdistill_core.training.batching import Schedule
from advdistill_core.training.paired import PairedSchedule
from advdistill_core.training.rows import Group


def schedule_of(
    config: StudentConfig,
    groups: Sequence[Group],
    shared: bool = True,
    rank: int = 0,
    world_size: int = 1,
    paired: bool = False,
) -> Schedule:
    """The optimizer steps that a configuration asks for.

    Args:
        paired: steps that know which of their rows are right and which wrong.
    """
    return (PairedSchedule if paired else Schedule)(
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
        report_to=[tracker for tracker in config.report_to if tracker != "tensorboard"],  # see `callbacks`
    )
