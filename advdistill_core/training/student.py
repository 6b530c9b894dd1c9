"""The model that learns: loaded, cut to fewer layers, given LoRA updates; and written."""

from pathlib import Path
from typing import Any

from advdistill_core import models
from advdistill_core.config.student import StudentConfig
from advdistill_core.models.home import no_bars
from advdistill_core.models.layers import keep_layers
from advdistill_core.models.sources import resolve
from advdistill_core.training import quantized


def load_student(config: StudentConfig, device: str | None = None) -> Any:
    """Load the student with float32 weights, which the optimizer's small steps need.

    Args:
        device: in place of the configured one.

    Raises:
        InputError: `keep_layers` names a layer that the model does not have, or 4-bit weights
            are asked for without bitsandbytes.
    """
    if config.quantization == "none":
        model = models.load_model(config.model, "float32", device or config.device, config.trust_remote_code)
    else:
        model = quantized.load(config, device or config.device)
    if config.keep_layers:
        keep_layers(model, config.keep_layers)
    if config.lora_rank:
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(config.seed)  # its matrices start random
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, lora)
    return model


def longest_row(config: StudentConfig) -> int:
    """Tokens of the longest row that the setting and the model's context allow."""
    from transformers import AutoConfig

    source = resolve(config.model)
    found = AutoConfig.from_pretrained(
        source.location, revision=source.revision, trust_remote_code=config.trust_remote_code
    )
    context = getattr(found, "max_position_embeddings", None)
    return min(config.max_seq_tokens, context or config.max_seq_tokens)


def save_student(model: Any, folder: Path, state: dict[str, Any] | None = None) -> None:
    """Write the weights as safetensors; LoRA updates are merged into them.

    Args:
        state: the gathered weights of a model that is divided among processes.
    """
    if getattr(model, "is_loaded_in_4bit", False):
        model = quantized.merged(model)
    elif hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    with no_bars():
        model.save_pretrained(folder, state_dict=state)
