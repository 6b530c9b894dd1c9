"""Key-value caches whose rows end at the same position, so that rows can come and go.

Rows are aligned on the right: every row's newest token is in the last column, and what is
missing on the left is masked. Dropping rows and joining a freshly computed prompt are then
one copy.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

_HEADROOM = 32  # columns kept free: one copy of the cache per so many tokens, not one each


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, (B, heads, T, head_dim), written in place as T grows.

    The library's own layer copies everything for every token.
    """

    keys: Any
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys = _widened(self.keys, self.length, end + _HEADROOM)
            self.values = _widened(self.values, self.length, end + _HEADROOM)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.length


def supports(model: Any) -> bool:
    """Whether a model's layers keep nothing but keys and values.

    Sliding windows are fine: the mask, not the cache, leaves out what is too far back.
    """
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def new_cache(model: Any) -> Cache:
    num_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    return Cache(layers=[GrowingLayer() for _ in range(num_layers)])


def join(old: Any, rows: torch.Tensor, left: int, new: Any, repeats: torch.Tensor) -> Cache:
    """A cache of some rows of `old`, less its `left` first columns, then of `new`'s rows.

    Args:
        old, new: caches of this module, or None.
        rows: indices of the rows of `old` to keep.
        repeats: how often each row of `new` is taken (the samples of a shared prompt).
    """
    olds = old.layers if old is not None else []
    news = new.layers if new is not None else []
    layers: list[Any] = []
    for i in range(max(len(olds), len(news))):
        layer = GrowingLayer()
        parts = []
        if olds and len(rows):
            parts.append((olds[i], rows, left))
        if news:
            index = torch.repeat_interleave(torch.arange(len(repeats), device=repeats.device), repeats)
            parts.append((news[i], index, 0))
        layer.keys = _stacked([(p.keys[:, :, cut : p.length], index) for p, index, cut in parts])
        layer.values = _stacked([(p.values[:, :, cut : p.length], index) for p, index, cut in parts])
        layer.length = layer.keys.shape[2] - _HEADROOM
        layer.dtype, layer.device, layer.is_initialized = layer.keys.dtype, layer.keys.device, True
        layers.append(layer)
    return Cache(layers=layers)


def _stacked(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Chosen rows of tensors of different lengths, aligned on the right, with headroom."""
    first = parts[0][0]
    length = max(tensor.shape[2] for tensor, _ in parts)
    count = sum(len(index) for _, index in parts)
    out = first.new_empty((count, first.shape[1], length + _HEADROOM, first.shape[3]))
    start = 0
    for tensor, index in parts:
        stop, pad = start + len(index), length - tensor.shape[2]
        out[start:stop, :, :pad] = 0  # masked, but must be finite
        out[start:stop, :, pad:length] = tensor[index]
        start = stop
    return out


def _widened(tensor: torch.Tensor, used: int, capacity: int) -> torch.Tensor:
    out = tensor.new_empty((*tensor.shape[:2], capacity, tensor.shape[3]))
    out[:, :, :used] = tensor[:, :, :used]
    return out
