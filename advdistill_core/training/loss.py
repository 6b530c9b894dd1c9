"""The weighted negative log-likelihood, without ever holding all logits.

The logits of a few hundred labels at a time are computed, turned into their gradient in
place and dropped: with a vocabulary of 50,000 they would otherwise be the largest tensor
of the whole computation. (Chunks are of labels, each with the whole vocabulary: one
pass, and the log-softmax stays exact.)
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 64 << 20


def weighted_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, coefficients: Tensor
) -> Tensor:
    """sum over labels of coefficient * -log softmax(hidden @ weight.T + bias)[label].

    The log-softmax is computed in fp32 (fp64 for fp64 weights), whatever the type of the
    matrix products, which is autocast's when that is on. No gradient goes to the
    coefficients.

    Args:
        hidden: (L, H) the hidden state that predicts each label.
        weight: (V, H) of the output layer; `bias` (V,) or None.
        labels: (L,) token ids.
        coefficients: (L,) constants.

    Returns:
        A scalar.
    """
    loss: Tensor = _WeightedNLL.apply(hidden, weight, bias, labels, coefficients)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def label_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """(L,) -log softmax of each label by itself, as `weighted_nll` computes it, without gradients."""
    kind = hidden.device.type
    work = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    matrix = weight.to(work)
    found = []
    rows = max(1, CHUNK_BYTES // (len(weight) * _precise(weight[:0]).element_size()))
    for states, label in zip(hidden.split(rows), labels.split(rows), strict=True):
        logits = _precise(states.to(work) @ matrix.T)
        if bias is not None:
            logits += bias
        found.append(logits.logsumexp(1) - logits.gather(1, label[:, None])[:, 0])
    return torch.cat(found)


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class _WeightedNLL(torch.autograd.Function):
    """Computes the gradients in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, coefficients: Tensor
    ) -> Tensor:
        kind = hidden.device.type
        work = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        matrix = weight.to(work)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.zeros_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight) if needs_weight else None
        d_bias = torch.zeros_like(bias) if needs_bias and bias is not None else None
        total = torch.zeros((), device=hidden.device, dtype=_precise(weight[:0]).dtype)
        rows = max(1, CHUNK_BYTES // (len(weight) * total.element_size()))
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            states = hidden[part].to(work)
            logits = _precise(states @ matrix.T)
            if bias is not None:
                logits += bias
            label, coefficient = labels[part, None], coefficients[part, None].to(logits.dtype)
            logits -= logits.amax(1, keepdim=True)
            own = logits.gather(1, label)
            gradient = logits.exp_()  # in the end coefficient * (p - onehot)
            normaliser = gradient.sum(1, keepdim=True)
            total += (coefficient * (normaliser.log() - own)).sum()
            if not (needs_hidden or needs_weight or needs_bias):
                continue
            gradient.mul_(coefficient / normaliser).scatter_add_(1, label, -coefficient)
            if d_bias is not None:
                d_bias += gradient.sum(0)
            gradient = gradient.to(work)
            if d_hidden is not None:
                d_hidden[part] = gradient @ matrix
            if d_weight is not None:
                d_weight += gradient.T @ states
        ctx.gradients = (d_hidden, d_weight, d_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [None if g is None else g.mul_(d_loss) for g in ctx.gradients]
        ctx.gradients = ()  # they are used up: scaled in place
        return (*gradients, None, None)
