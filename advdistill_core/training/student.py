"""The model that learns: loaded, cut to fewer layers, given LoRA updates; and written."""

from pathlib import Path
from typing import Any

from torch import nn

from advdistill_core import models
from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import InputError
from advdistill_core.models.home import no_bars


def load_student(config: StudentConfig, device: str | None = None) -> Any:
    """Load the student with float32 weights, which the optimizer's small steps need.

    Args:
        device: in place of the configured one.

    Raises:
        InputError: `keep_layers` names a layer that the model does not have.
    """
    model = models.load_model(config.model, "float32", device or config.device, config.trust_remote_code)
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


def keep_layers(model: Any, kept: list[int]) -> None:
    """Leave only some layers of a model, in place.

    Args:
        kept: indices in ascending order.

    Raises:
        InputError: there is no such layer.
    """
    count = model.config.num_hidden_layers
    if kept[-1] >= count:
        raise InputError("student.keep_layers", kept, f"layers from 0 to {count - 1}, the model has {count}")
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                setattr(parent, name, nn.ModuleList(child[i] for i in kept))
                for place, layer in enumerate(getattr(parent, name)):
                    _renumber(layer, place)
                model.config.num_hidden_layers = len(kept)
                if getattr(model.config, "layer_types", None):
                    model.config.layer_types = [model.config.layer_types[i] for i in kept]
                return
    raise InputError(
        "student.keep_layers", kept, f"a model with a list of layers, got {type(model).__name__}"
    )


def _renumber(layer: nn.Module, place: int) -> None:
    """Caches are indexed with the number that attention modules carry."""
    for module in layer.modules():
        if hasattr(module, "layer_idx"):
            setattr(module, "layer_idx", place)  # noqa: B010 (typed as a Tensor or a Module)


def save_student(model: Any, folder: Path, state: dict[str, Any] | None = None) -> None:
    """Write the weights as safetensors; LoRA updates are merged into them.

    Args:
        state: the gathered weights of a model that is divided among processes.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    with no_bars():
        model.save_pretrained(folder, state_dict=state)
