"""QLoRA: weights of 4 bit by bitsandbytes, with LoRA updates beside them.

Source: Dettmers et al. 2023 (NF4, double quantization). The library works on GPU, and more
slowly on CPU.
"""

import importlib.util
from typing import Any

from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import InputError
from advdistill_core.models.home import no_bars
from advdistill_core.models.load import pick_device, pick_dtype
from advdistill_core.models.sources import resolve


def check(config: StudentConfig) -> None:
    """Refuse 4-bit weights where the library is missing.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if config.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "student.quantization",
            f"{config.quantization} without bitsandbytes",
            "the package bitsandbytes",
            "Install advdistill[qlora], or set student.quantization=none.",
        )


def settings(config: StudentConfig, device: Any) -> dict[str, Any]:
    """What the library is told; products are computed in the type of the training."""
    import torch

    work = pick_dtype(config.dtype, device) if device.type == "cuda" else torch.float32
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": config.quantization,
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": work,
    }


def load(config: StudentConfig, device: str) -> Any:
    """Load the student with linear layers of 4 bit; all other weights in float32.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    check(config)
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    source, target = resolve(config.model), pick_device(device)
    with no_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            revision=source.revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            quantization_config=BitsAndBytesConfig(**settings(config, target)),
            device_map={"": target},
        )
    for layer in model.modules():
        # On newer CPUs the library lays weights out anew in the first forward pass of
        # inference, a form that its backward pass and `dequantize_4bit` do not know.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model.eval()


def merged(model: Any) -> Any:
    """The language model with plain float32 layers: dequantized weights plus their updates.

    Merging in 4 bit, as peft does, would round the updates away.

    Args:
        model: with LoRA layers on 4-bit ones; it is changed.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import LoraLayer
    from torch import nn

    base = model.get_base_model()
    for parent in list(base.modules()):
        for name, layer in list(parent.named_children()):
            inner: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
            if type(inner).__name__ != "Linear4bit":
                continue
            weight = dequantize_4bit(inner.weight.data, inner.weight.quant_state).float()
            lora: Any = layer
            for adapter in lora.active_adapters if isinstance(layer, LoraLayer) else ():
                weight = weight + lora.get_delta_weight(adapter).float()
            width, height = weight.shape[::-1]
            plain: Any = nn.Linear(width, height, bias=inner.bias is not None, device=weight.device)
            plain.weight.data = weight
            if inner.bias is not None:
                plain.bias.data = inner.bias.data.float()
            setattr(parent, name, plain)
    base.config.__dict__.pop("quantization_config", None)
    base.hf_quantizer, base.is_quantized, base.is_loaded_in_4bit = None, False, False
    return base
