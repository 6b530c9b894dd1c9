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

# What some models' attention adds to the plain one, under transformers' argument names.
_NOT_PLAIN = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True)
class TreeMask:
    """Who sees whom in a micro-batch.

    Args:
        pieces: on CPU, with for each piece (n, m + n) what its n tokens see of the m
            tokens above it and of each other; None for plain causal attention.
        block: FlexAttention's block mask, on GPU.
    """

    pieces: tuple[tuple[Piece, Tensor | None], ...] = ()
    block: Any = None


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
    out: Tensor = _OnPieces.apply(query, key, value, tree.pieces, dropout, scaling)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


class _OnPieces(torch.autograd.Function):
    """Attention piece by piece.

    The gradients of the keys are added up in one place, where slicing would make autograd
    fill a tensor of zeros for every piece. The attention itself is computed again for it,
    which costs little since the pieces hold few pairs.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Any, dropout: float, scale: float | None
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.pieces, ctx.scale, ctx.dropout = pieces, scale, dropout
        ctx.seeds = [int(torch.randint(2**62, ())) if dropout else 0 for _ in pieces]
        out = torch.empty_like(query)
        for (piece, mask), seed in zip(pieces, ctx.seeds, strict=True):
            q, k, v = query[:, :, piece.start : piece.stop], _take(key, piece), _take(value, piece)
            out[:, :, piece.start : piece.stop] = _attend(q, k, v, mask, dropout, scale, seed)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (piece, mask), seed in zip(ctx.pieces, ctx.seeds, strict=True):
            own = slice(piece.start, piece.stop)
            taken = (query[:, :, own], _take(key, piece), _take(value, piece))
            with torch.enable_grad():
                q, k, v = (x.detach().requires_grad_() for x in taken)
                out = _attend(q, k, v, mask, ctx.dropout, ctx.scale, seed)
            d_q, d_k, d_v = torch.autograd.grad(out, (q, k, v), d_out[:, :, own])
            d_query[:, :, own] = d_q
            _give_back(d_key, d_k, piece)
            _give_back(d_value, d_v, piece)
        return d_query, d_key, d_value, None, None, None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scale: float | None,
    seed: int,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    with torch.random.fork_rng(devices=[], enabled=dropout > 0):
        if dropout > 0:  # the same draw in the forward and the backward pass
            torch.manual_seed(seed)
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale
        )


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
