"""Tiny models in fp64 and the naive loss that everything is compared with."""

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from advdistill_core.training.batching import Schedule
from advdistill_core.training.forward import attach, detach, model_inputs
from advdistill_core.training.rows import Group, Row

VOCABULARY = 29


class ExactRMSNorm(nn.Module):
    """Like the models' own, which round to fp32 inside and so hide small differences."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight
        self.eps = norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def build_model(
    shape: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any
) -> Any:
    """A random two-layer model of one of three families."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    common = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(seed)
    if shape == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.4}
        off = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
        return GPT2LMHeadModel(GPT2Config(**common, **sizes, **off)).to(dtype)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
        "tie_word_embeddings": shape == "llama",
    } | changes
    kinds = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen2": (Qwen2ForCausalLM, Qwen2Config)}
    model_class, config_class = kinds[shape]
    model = model_class(config_class(**common, **sizes)).to(dtype)
    if dtype == torch.float64:
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if type(child).__name__.endswith("RMSNorm"):
                    setattr(module, name, ExactRMSNorm(child))
    return model


def build_groups(seed: int = 0, num_groups: int = 5) -> list[Group]:
    """Groups of 1 to 6 responses: unequal lengths, shared beginnings, one a prefix of
    another, single tokens and exact duplicates."""
    r = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(r.randrange(2, VOCABULARY) for _ in range(r.randint(low, high)))

    groups = []
    for i in range(num_groups):
        stem = tokens(2, 4)
        completions = [stem, stem + tokens(1, 5), stem + tokens(1, 5), tokens(1, 1), tokens(3, 8), stem]
        chosen = completions[: 1 + (i * 2 + 5) % 6]
        rows = tuple(Row(completion, 0.05 + r.random()) for completion in chosen)
        groups.append(Group(f"prompt-{i}", tokens(1, 7), rows))
    return groups


def naive_loss(model: Any, groups: Sequence[Group], reduction: str, max_tokens: int) -> torch.Tensor:
    """The weighted loss as METHOD states it: one row at a time, no padding, no sharing."""
    total, weighted_tokens, weight = torch.zeros((), dtype=torch.float64), 0.0, 0.0
    for group in groups:
        for row in group.rows:
            ids = torch.tensor([[*group.prompt, *row.completion]])
            log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            nll = torch.zeros((), dtype=torch.float64)
            for t in range(len(group.prompt), ids.shape[1]):
                nll = nll - log_probs[t - 1, ids[0, t]]
            length = len(row.completion)
            total = total + row.weight * (nll / length if reduction == "seq_mean" else nll)
            weighted_tokens += row.weight * length
            weight += row.weight
    divisor = {
        "token_mean": weighted_tokens,
        "seq_mean": weight,
        "const": float(len(groups) * max_tokens),
    }[reduction]
    return total / divisor


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} got no gradient"
        found[name] = parameter.grad.clone()
    model.zero_grad()
    return found


def naive(model: Any, groups: Sequence[Group], reduction: str = "token_mean", max_tokens: int = 32) -> Any:
    """Loss and every parameter's gradient by the naive reference."""
    loss = naive_loss(model, groups, reduction, max_tokens)
    loss.backward()
    return loss.item(), gradients(model)


def ours(
    model: Any,
    groups: Sequence[Group],
    reduction: str = "token_mean",
    *,
    max_tokens: int = 32,
    batch_tokens: int = 1000,
    share: bool = True,
    fused: bool = True,
    world_size: int = 1,
) -> Any:
    """Loss and gradients of one optimizer step, summed over micro-batches and processes."""
    attention = model.config._attn_implementation
    attach(model, share, fused)
    total, num_batches = 0.0, []
    try:
        for rank in range(world_size):
            schedule = Schedule(
                groups, len(groups), 1, 0, reduction, max_tokens, batch_tokens, share, rank, world_size
            )
            batches = schedule.micro_batches(0)
            num_batches.append(len(batches))
            for batch in batches:
                loss = model(**model_inputs(batch, torch.device("cpu"), share))["loss"]
                loss.backward()
                total += loss.item()
    finally:
        detach(model, attention)
    assert len(set(num_batches)) == 1, "processes must take part in the same number of collectives"
    return total, gradients(model)


def assert_same(got: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Equal losses, and equal gradients of every parameter, relative to the largest."""
    assert got[0] == pytest.approx(expected[0], rel=tolerance, abs=tolerance)
    scale = max(float(g.abs().max()) for g in expected[1].values())
    for name, gradient in expected[1].items():
        difference = float((got[1][name] - gradient).abs().max())
        assert difference <= tolerance * scale, f"{name}: gradients differ by {difference:.3g}"


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    """The helpers above (test folders are no packages, so nothing imports from here)."""
    torch.set_num_threads(1)
    helpers: list[Callable[..., Any]] = [
        build_model, build_groups, naive, ours, assert_same, gradients, naive_loss,
    ]  # fmt: skip
    return SimpleNamespace(VOCABULARY=VOCABULARY, **{f.__name__: f for f in helpers})
