"""Attention of one new token per row, without copying grouped keys and values.

Where several query heads share a key head, the library repeats the keys and values for
every query head as soon as there is a mask, at every step. For a single new token the
query heads of a group can stand as so many queries of one head instead: the same numbers,
no copy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "advdistill_grouped"


def _grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """(B, H, 1, D) queries on (B, H/G, T, D) keys; anything else goes to the library."""
    batch, heads, queries, width = query.shape
    groups = heads // key.shape[1]
    if queries > 1 or groups == 1 or attention_mask is None or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    attended = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, heads // groups, groups, width),
        key,
        value,
        attn_mask=attention_mask.expand(-1, 1, groups, -1),
        scale=scaling,
    )
    return attended.reshape(batch, 1, heads, value.shape[-1]), None


AttentionInterface.register(_NAME, _grouped)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def grouped_attention(model: Any) -> Iterator[None]:
    """Use it in a model that has the library's SDPA attention; others are left alone."""
    if model.config._attn_implementation != "sdpa":
        yield
        return
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")
