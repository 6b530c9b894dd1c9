"""Attention over trees of tokens laid end to end.

Token i sees token j exactly when `j <= i < ends[j]` (see `tree`). On CPU every tree is a
call of its own, so that no time goes into pairs of different trees; on GPU one
FlexAttention call skips whole blocks that the mask empties.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "advdistill_tree"

# What some models' attention adds to the plain one, under transformers' argument names.
_NOT_PLAIN = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True)
class TreeMask:
    """Who sees whom in a micro-batch.

    Args:
        ends: (N,) one past the last descendant of each token.
        bounds: where each tree begins, and the end.
        masks: for each tree (n, n) what its tokens see; None for plain causal attention.
        block: FlexAttention's block mask, on GPU.
    """

    ends: Tensor
    bounds: tuple[int, ...]
    masks: tuple[Tensor | None, ...] = ()
    block: Any = None


def sees(ends: Tensor) -> Tensor:
    """(n, n) booleans: whether token i (row) sees token j (column), for ends from 0."""
    places = torch.arange(len(ends), device=ends.device)
    return (places <= places[:, None]) & (places[:, None] < ends)


def tree_mask(ends: Tensor, bounds: tuple[int, ...]) -> TreeMask:
    """Prepare the masks of a micro-batch, once for all layers.

    Args:
        ends: (N,) int64, on the device of the computation.
        bounds: (S + 1,) where each tree begins, and the end.
    """
    if ends.device.type == "cuda":
        return TreeMask(ends, bounds, block=_block_mask(ends))
    masks: list[Tensor | None] = []
    for start, stop in itertools.pairwise(bounds):
        chain = bool((ends[start:stop] == stop).all())  # one response: nothing branches
        masks.append(None if chain else sees(ends[start:stop] - start))
    return TreeMask(ends, bounds, tuple(masks))


def _block_mask(ends: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < ends[key])

    return create_block_mask(mask, None, None, len(ends), len(ends), device=ends.device)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Any = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """An attention function in the form that transformers models call.

    Args:
        query: (1, heads, N, D); `key` and `value` (1, key heads, N, D).
        layout: the micro-batch (`forward.Layout`); it comes through the model's keyword
            arguments.

    Raises:
        TypeError: the model asks for more than plain attention.

    Returns:
        (1, N, heads, D), and no attention weights.
    """
    if unknown := [name for name in _NOT_PLAIN if others.get(name) is not None]:
        raise TypeError(f"tree attention: got {', '.join(unknown)}, expected plain attention")
    tree: TreeMask = layout.mask
    if tree.block is not None:
        return _flex(query, key, value, tree.block, scaling), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    parts = []
    for (start, stop), mask in zip(itertools.pairwise(tree.bounds), tree.masks, strict=True):
        q, k, v = (x[:, :, start:stop] for x in (query, key, value))
        parts.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _flex(query: Tensor, key: Tensor, value: Tensor, block: Any, scaling: float | None) -> Tensor:
    out: Tensor = _compiled_flex()(
        query, key, value, block_mask=block, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2).contiguous()


def _compiled_flex() -> Any:
    from transformers.integrations.flex_attention import WrappedFlexAttention

    return WrappedFlexAttention(True)()  # one compiled kernel per process


def register() -> None:
    """Make `tree_attention` known to transformers under `NAME`.

    No mask function is registered with it, so models build no mask of their own.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
