"""Drawing the next token of every row, each from its own random number.

A row's choice is a function of its logits and of one uniform number that comes from its
own seed, so it does not depend on what else is in the batch. The draw inverts the
cumulative distribution.
"""

import torch

_FIRST_LOOK = 1024  # tokens among which the nucleus is sought before all are sorted


def choose(
    logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0
) -> torch.Tensor:
    """Draw one token for each row.

    Order of the filters, as in transformers: temperature, top-k, top-p.

    Args:
        logits: (B, V), any float type.
        uniforms: (B,) float64 in [0, 1).
        temperature: 0 takes the likeliest token.
        top_p: keeps the smallest set of likeliest tokens whose probability reaches it.
        top_k: keeps the k likeliest; 0 keeps all.

    Returns:
        (B,) token ids.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / temperature, -1)
    vocabulary = probabilities.shape[-1]
    if 0 < top_k < vocabulary:
        kept, ids = probabilities.topk(top_k, -1)
        kept = kept / kept.sum(-1, keepdim=True)
    elif top_p < 1:
        kept, ids = _likeliest(probabilities, top_p)
    else:
        return _invert(probabilities, uniforms)
    if top_p < 1:
        kept = _nucleus(kept, top_p)
    return ids.gather(-1, _invert(kept, uniforms)[:, None])[:, 0]


def _likeliest(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens, sorted: enough of them to hold every row's nucleus."""
    kept, ids = probabilities.topk(min(_FIRST_LOOK, probabilities.shape[-1]), -1)
    if bool((kept.sum(-1) >= top_p).all()):
        return kept, ids
    sorted_all = probabilities.sort(-1, descending=True)
    return sorted_all.values, sorted_all.indices


def _nucleus(kept: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero the sorted probabilities that lie beyond the nucleus; the first always stays."""
    before = kept.cumsum(-1) - kept
    return kept.masked_fill(before >= top_p, 0.0)


def _invert(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The index at which each row's cumulative weight passes its uniform share of the total."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    target = uniforms.to(cumulative.device, torch.float64)[:, None] * total
    # Rounded up to the total it would point behind the last possible token.
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True)[:, 0]
