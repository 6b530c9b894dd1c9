"""Attention over trees: the CPU and the GPU form against one dense mask."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from advdistill_core.training import attention, pieces
from advdistill_core.training.batching import lay_end_to_end
from advdistill_core.training.forward import Layout
from advdistill_core.training.tree import build_tree

ROWS = [(5, 6, 7, 8), (5, 6, 9, 1, 2), (3, 4), (5, 1)]


def setting(device: str = "cpu", dtype: torch.dtype = torch.float64):
    batch = lay_end_to_end(
        [
            build_tree((1, 2, 3), ROWS, [1.0] * 4),
            build_tree((4,), [(5, 6, 7)], [1.0]),
            build_tree((1, 9), ROWS, [1.0] * 4),
        ]
    )
    ends = torch.from_numpy(batch.tree.ends).to(device)
    torch.manual_seed(0)
    n = len(ends)
    q, k, v, d_out = (torch.randn(1, heads, n, 16, dtype=dtype, device=device) for heads in (4, 2, 2, 4))
    return batch, ends, [q, k, v], d_out.transpose(1, 2)


def dense(ends, qkv, d_out):
    q, k, v = (x.detach().clone().requires_grad_() for x in qkv)
    repeat = q.shape[1] // k.shape[1]
    out = scaled_dot_product_attention(
        q,
        k.repeat_interleave(repeat, 1),
        v.repeat_interleave(repeat, 1),
        attn_mask=attention.sees(ends),
        scale=0.3,
    ).transpose(1, 2)
    out.backward(d_out)
    return [out.detach(), q.grad, k.grad, v.grad]


def ours(mask, qkv, d_out):
    q, k, v = (x.detach().clone().requires_grad_() for x in qkv)
    layout = Layout(mask, torch.empty(0), torch.empty(0), torch.empty(0))
    out, _ = attention.tree_attention(torch.nn.Identity(), q, k, v, None, scaling=0.3, layout=layout)
    out.backward(d_out)
    return [out.detach(), q.grad, k.grad, v.grad]


@pytest.mark.parametrize("call_pairs", [0, 10**9])
def test_pieces_on_cpu(monkeypatch, call_pairs):
    monkeypatch.setattr(pieces, "CALL_PAIRS", call_pairs)
    batch, ends, qkv, d_out = setting()
    mask = attention.tree_mask(ends, tuple(batch.bounds.tolist()))
    for got, expected in zip(ours(mask, qkv, d_out), dense(ends, qkv, d_out), strict=True):
        assert (got - expected).abs().max() < 1e-12


def test_the_block_mask_of_flex_attention(monkeypatch):
    """The GPU form, not compiled, so that it runs here."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex_attention)
    _, ends, qkv, d_out = setting(dtype=torch.float32)
    mask = attention.TreeMask(block=attention._block_mask(ends))
    got = attention._flex(*qkv, mask.block, 0.3)
    assert (got - dense(ends, qkv, d_out)[0]).abs().max() < 1e-5


@pytest.mark.gpu
def test_flex_attention_on_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    batch, ends, qkv, d_out = setting("cuda", torch.float32)
    mask = attention.tree_mask(ends, tuple(batch.bounds.tolist()))
    for got, expected in zip(ours(mask, qkv, d_out), dense(ends, qkv, d_out), strict=True):
        assert (got - expected).abs().max() < 2e-2


def test_attention_that_is_not_plain_is_refused():
    batch, ends, qkv, _ = setting()
    layout = Layout(attention.tree_mask(ends, tuple(batch.bounds.tolist())), *[torch.empty(0)] * 3)
    with pytest.raises(TypeError, match="softcap"):
        attention.tree_attention(torch.nn.Identity(), *qkv, None, layout=layout, softcap=50.0)
