"""A model cut to some of its layers."""

from typing import Any

from torch import nn

from advdistill_core.errors import InputError


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
