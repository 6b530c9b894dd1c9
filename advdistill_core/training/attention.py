"""Attention over trees of tokens laid end to end.

Token i sees token j exactly when `j <= i < ends[j]` (see `tree`). On CPU a tree is cut
into pieces (`pieces`), each a call of its own with only the keys that it sees, so that no
time goes into pairs of different trees or of different responses; on GPU one
FlexAttention call skips whole blocks that the mask empties.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from advdistill_core.training.pieces import Piece, cut

NAME = "advdistill_tree"

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_kernel_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

# What some models' attention adds to the plain one, under transformers' argument names.
_NOT_PLAIN = ("softcap", "s_aux", "position_bias")


Pieces = tuple[tuple[Piece, Tensor | None], ...]


@dataclass
class TreeMask:
    """Who sees whom in a micro-batch.

    Args:
        pieces: on CPU, with for each piece (n, m + n) what its n tokens see of the m
            tokens above it and of each other, as booleans or as numbers that are added to
            the scores; None for plain causal attention.
        block: FlexAttention's block mask, on GPU.
    """

    pieces: Pieces = ()
    block: Any = None

    def pieces_for(self, dtype: torch.dtype) -> Pieces:
        """With the masks as numbers, made once for all layers (which agree in their type)."""
        if any(mask is not None and mask.dtype != dtype for _, mask in self.pieces):
            self.pieces = tuple((piece, _as_numbers(mask, dtype)) for piece, mask in self.pieces)
        return self.pieces


def _as_numbers(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf)
    return mask.to(dtype)


def sees(ends: Tensor) -> Tensor:
    """(n, n) booleans: whether token i (row) sees token j (column), for ends from 0."""
    places = torch.arange(len(ends), device=ends.device)
    return (places <= places[:, None]) & (places[:, None] < ends)


def tree_mask(ends: Tensor, bounds: tuple[int, ...]) -> TreeMask:
    """Prepare the masks of a micro-batch, once for all layers.

    Args:
        ends: (N,) int64 one past the last descendant of each token, on the device of the
            computation.
        bounds: (S + 1,) where each tree begins, and the end.
    """
    if ends.device.type == "cuda":
        return TreeMask(block=_block_mask(ends))
    return TreeMask(tuple((piece, _piece_mask(piece, ends)) for piece in cut(ends.tolist(), bounds)))


def _piece_mask(piece: Piece, ends: Tensor) -> Tensor | None:
    above = sum(stop - start for start, stop in piece.above)
    own = sees(ends[piece.start : piece.stop] - piece.start)
    if not above and bool((ends[piece.start : piece.stop] >= piece.stop).all()):
        return None
    return torch.cat([torch.ones(len(own), above, dtype=torch.bool), own], dim=1)


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
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # which casts neither our function nor FlexAttention
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    tree: TreeMask = layout.mask
    if tree.block is not None:
        return _flex(query, key, value, tree.block, scaling), None
    pieces = tree.pieces_for(query.dtype)
    if dropout > 0:
        out = _with_dropout(query, key, value, pieces, dropout, scaling)
    else:
        out = _OnPieces.apply(query, key, value, pieces, scaling)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


class _OnPieces(torch.autograd.Function):
    """Attention piece by piece, without dropout.

    The gradients of the keys are added up in one place, where slicing would make autograd
    fill a tensor of zeros for every piece. PyTorch's kernel is called under its own name
    since only so does it give what its backward pass needs: else that would have to
    compute the attention once more.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Pieces, scale: float | None
    ) -> Tensor:
        batch, heads, num, width = query.shape
        wide_key, wide_value = _one_per_query_head(key, heads), _one_per_query_head(value, heads)
        # In memory as the layer that follows wants it, which then needs no copy.
        out = query.new_empty(batch, num, heads, width).transpose(1, 2)
        normalisers = []
        for piece, mask in pieces:
            q, k, v = query[:, :, piece.start : piece.stop], _take(wide_key, piece), _take(wide_value, piece)
            out[:, :, piece.start : piece.stop], normaliser = _kernel(
                q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale
            )
            normalisers.append(normaliser)
        ctx.save_for_backward(query, key, value, out, *normalisers)
        ctx.pieces, ctx.scale = pieces, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *normalisers = ctx.saved_tensors
        heads, key_heads = query.shape[1], key.shape[1]
        wide_key, wide_value = _one_per_query_head(key, heads), _one_per_query_head(value, heads)
        d_query, d_key, d_value = (torch.zeros_like(x) for x in (query, wide_key, wide_value))
        for (piece, mask), normaliser in zip(ctx.pieces, normalisers, strict=True):
            own = slice(piece.start, piece.stop)
            d_query[:, :, own], d_k, d_v = _kernel_backward(
                d_out[:, :, own], query[:, :, own], _take(wide_key, piece), _take(wide_value, piece),
                out[:, :, own], normaliser, 0.0, mask is None, attn_mask=mask, scale=ctx.scale,
            )  # fmt: skip
            _give_back(d_key, d_k, piece)
            _give_back(d_value, d_v, piece)
        return d_query, _per_key_head(d_key, key_heads), _per_key_head(d_value, key_heads), None, None


def _with_dropout(
    query: Tensor, key: Tensor, value: Tensor, pieces: Pieces, dropout: float, scale: float | None
) -> Tensor:
    """The same by ordinary autograd: PyTorch's kernel for CPU knows no dropout."""
    heads = query.shape[1]
    key, value = _one_per_query_head(key, heads), _one_per_query_head(value, heads)
    outs = [
        scaled_dot_product_attention(
            query[:, :, piece.start : piece.stop], _take(key, piece), _take(value, piece),
            attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale,
        )
        for piece, mask in pieces
    ]  # fmt: skip
    return torch.cat(outs, dim=2)


def _one_per_query_head(x: Tensor, heads: int) -> Tensor:
    """Repeat what several query heads share."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _per_key_head(x: Tensor, heads: int) -> Tensor:
    """Add up the gradients of what was repeated."""
    return x if x.shape[1] == heads else x.unflatten(1, (heads, -1)).sum(2)


def _take(x: Tensor, piece: Piece) -> Tensor:
    """What a piece sees: the tokens above it, then its own."""
    if not piece.above:
        return x[:, :, piece.start : piece.stop]
    return torch.cat([x[:, :, a:b] for a, b in (*piece.above, (piece.start, piece.stop))], dim=2)


def _give_back(total: Tensor, part: Tensor, piece: Piece) -> None:
    """Add a gradient to where `_take` took from."""
    place = 0
    for a, b in (*piece.above, (piece.start, piece.stop)):
        total[:, :, a:b] += part[:, :, place : place + b - a]
        place += b - a


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
