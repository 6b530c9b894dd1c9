"""The forward pass of training: from a micro-batch to its loss, inside the model.

The loss is computed inside `forward`, not on what it returns, so that wrappers (DDP,
FSDP, autocast, LoRA) see one ordinary forward pass and the logits never leave it.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advdistill_core.training.attention import NAME, TreeMask, register, tree_mask
from advdistill_core.training.batching import MicroBatch
from advdistill_core.training.loss import label_nll, weighted_nll


class Layout:
    """The labels of a micro-batch and who sees whom.

    A plain object, so that wrappers that cast or scatter tensors leave it alone.

    Args:
        mask: of the tree layout; None for the padded one.
        sources: (L,) which of the flattened tokens predicts each label.
        labels: (L,) token ids.
        coefficients: (L,) in float64.

    Attributes:
        per_label: ask for each label's negative log-likelihood, without gradients, in place
            of the loss.
    """

    def __init__(self, mask: TreeMask | None, sources: Tensor, labels: Tensor, coefficients: Tensor) -> None:
        self.mask, self.sources, self.labels, self.coefficients = mask, sources, labels, coefficients
        self.per_label = False


def model_inputs(batch: MicroBatch, device: torch.device, shared: bool) -> dict[str, Any]:
    """Keyword arguments for a model that `attach` has prepared.

    Args:
        shared: the tree layout; otherwise the batch must hold single responses, and they
            are padded on the right.
    """
    tree = batch.tree
    labels = torch.from_numpy(tree.labels).to(device)
    coefficients = torch.from_numpy(tree.coefficients).to(device)
    if shared:
        mask = tree_mask(torch.from_numpy(tree.ends).to(device), tuple(batch.bounds.tolist()))
        sources = torch.from_numpy(tree.sources).to(device)
        return {
            "input_ids": torch.from_numpy(tree.tokens).to(device)[None],
            "position_ids": torch.from_numpy(tree.positions).to(device)[None],
            "layout": Layout(mask, sources, labels, coefficients),
        }
    lengths = np.diff(batch.bounds)
    width = int(lengths.max())
    real = np.arange(width) < lengths[:, None]
    tokens = np.zeros(real.shape, dtype=np.int64)
    tokens[real] = tree.tokens
    place = np.flatnonzero(real)[tree.sources]
    return {
        "input_ids": torch.from_numpy(tokens).to(device),
        "attention_mask": torch.from_numpy(real.astype(np.int64)).to(device),
        "layout": Layout(None, torch.from_numpy(place).to(device), labels, coefficients),
    }


def causal_lm(model: Any) -> Any:
    """The language model itself, under a LoRA wrapper or not."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attach(model: Any, shared: bool, fused: bool) -> None:
    """Teach a causal language model to return the loss of a `Layout`.

    Calls without a layout go to the model's own forward.

    Args:
        shared: use the attention over trees; see `probe` for whether a model can.
        fused: compute the output layer in chunks; see `probe`.
    """
    causal = causal_lm(model)
    original = causal.forward
    if shared:
        register()
        causal.set_attn_implementation(NAME)

    @functools.wraps(original)
    def forward(*args: Any, layout: Layout | None = None, **kwargs: Any) -> Any:
        if layout is None:
            return original(*args, **kwargs)
        if layout.per_label:
            return {"nll": _label_nll(causal, original, fused, layout, kwargs)}
        if fused:
            return {"loss": _fused_loss(causal, layout, kwargs)}
        return {"loss": _plain_loss(original, layout, kwargs)}

    causal.forward = forward


def detach(model: Any, attention: str) -> None:
    """Undo `attach`; the model is as it was, with the given attention implementation."""
    causal = causal_lm(model)
    causal.__dict__.pop("forward", None)
    causal.set_attn_implementation(attention)


def _passed_on(layout: Layout) -> dict[str, Any]:
    return {"use_cache": False} | ({} if layout.mask is None else {"layout": layout})


def _fused_loss(causal: Any, layout: Layout, inputs: dict[str, Any]) -> Tensor:
    hidden = causal.base_model(**inputs, **_passed_on(layout)).last_hidden_state
    head: nn.Linear = causal.get_output_embeddings()
    states = hidden.flatten(0, 1)[layout.sources]
    return weighted_nll(states, head.weight, head.bias, layout.labels, layout.coefficients)


def _label_nll(causal: Any, original: Any, fused: bool, layout: Layout, inputs: dict[str, Any]) -> Tensor:
    if fused:
        hidden = causal.base_model(**inputs, **_passed_on(layout)).last_hidden_state
        head: nn.Linear = causal.get_output_embeddings()
        return label_nll(hidden.flatten(0, 1)[layout.sources], head.weight, head.bias, layout.labels)
    return _plain_nll(original, layout, inputs)


def _plain_loss(original: Any, layout: Layout, inputs: dict[str, Any]) -> Tensor:
    """With whatever the model does after its output layer, and all logits at once."""
    nll = _plain_nll(original, layout, inputs)
    return (nll * layout.coefficients.to(nll.dtype)).sum()


def _plain_nll(original: Any, layout: Layout, inputs: dict[str, Any]) -> Tensor:
    logits = original(**inputs, **_passed_on(layout)).logits.flatten(0, 1)[layout.sources]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return nn.functional.cross_entropy(logits, layout.labels, reduction="none")


def probe(model: Any, longest_tokens: int, tolerance: float = 1e-3) -> tuple[bool, bool]:
    """Find out what a model allows, by comparing with its own forward.

    A model whose attention is not the standard one (recurrent, windowed, with sinks or a
    soft cap) cannot share prefixes this way, and one that scales its logits cannot have
    its output layer computed apart. Both then take the slower layout, with equal results.

    Args:
        longest_tokens: the longest row that will be trained on.
        tolerance: in nats per token.

    Returns:
        Whether prefixes can be shared, and whether the output layer can be fused.
    """
    causal = causal_lm(model)
    head = causal.get_output_embeddings()
    attention, training = causal.config._attn_implementation, model.training
    rows = [[5, 6, 7, 8], [5, 6, 9, 1, 2], [3, 4]]
    prompt = [1, 2, 3, 4]
    model.eval()
    try:
        with torch.no_grad():
            expected, fused = _own_losses(causal, head, prompt, rows, tolerance)
            shared = not _windowed(causal.config, longest_tokens) and _tree_agrees(
                causal, prompt, rows, expected, fused, tolerance
            )
    finally:
        detach(model, attention)
        model.train(training)
    return shared, fused


def _own_losses(
    causal: Any, head: Any, prompt: list[int], rows: list[list[int]], tolerance: float
) -> tuple[Tensor, bool]:
    """Each row's summed nll by the model alone, and whether its logits are head(hidden)."""
    losses, fused = [], type(head) is nn.Linear
    for row in rows:
        ids = torch.tensor([prompt + row], device=head.weight.device)
        logits = causal(input_ids=ids, use_cache=False).logits[0].float()
        if fused:
            hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
            fused = bool((head(hidden).float() - logits).abs().max() <= tolerance)
        losses.append(
            nn.functional.cross_entropy(logits[len(prompt) - 1 : -1], ids[0, len(prompt) :], reduction="sum")
        )
    return torch.stack(losses), fused


def _tree_agrees(
    causal: Any, prompt: list[int], rows: list[list[int]], expected: Tensor, fused: bool, tolerance: float
) -> bool:
    from advdistill_core.training.batching import lay_end_to_end
    from advdistill_core.training.tree import build_tree

    attach(causal, shared=True, fused=fused)
    for i in range(len(rows)):  # one row's loss at a time, in the layout of all
        tree = build_tree(prompt, rows, [float(i == j) for j in range(len(rows))])
        batch = model_inputs(lay_end_to_end([tree, tree]), expected.device, shared=True)
        try:
            loss = causal(**batch)["loss"] / 2
        except TypeError:  # its attention does not take our arguments
            return False
        if not bool((loss - expected[i]).abs() <= tolerance * len(rows[i])):
            return False
    return True


def _windowed(config: Any, longest_tokens: int) -> bool:
    """Whether a layer does not look back all the way, which short probes do not show."""
    window = getattr(config, "sliding_window", None)
    if window is not None and window >= longest_tokens:
        return False
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return any(kind != "full_attention" for kind in kinds)
    return window is not None and bool(getattr(config, "use_sliding_window", True))
