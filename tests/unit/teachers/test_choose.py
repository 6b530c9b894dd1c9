"""Drawing tokens: the right distribution, compared with one worked out in plain Python."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from advdistill_core.teachers.choose import choose

LOGITS = [1.5, 0.2, -0.7, 2.1, -3.0, 0.9, 0.5, -math.inf]
# 0.999 quantiles of chi-square by degrees of freedom
CHI2_999 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46}


def expected(temperature: float, top_p: float, top_k: int) -> dict[int, float]:
    """Token probabilities after temperature, then top-k, then top-p."""
    weights = {i: math.exp(x / temperature) for i, x in enumerate(LOGITS) if x > -math.inf}
    order = sorted(weights, key=lambda i: -weights[i])
    if top_k:
        order = order[:top_k]
    total = sum(weights[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if mass >= top_p:
            break
        kept.append(i)
        mass += weights[i] / total
    total = sum(weights[i] for i in kept)
    return {i: weights[i] / total for i in kept}


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.6, 1.0, 0), (2.0, 1.0, 3), (1.0, 0.8, 0), (1.3, 0.7, 5), (1.0, 0.05, 0)],
)
def test_draws_follow_the_distribution(temperature: float, top_p: float, top_k: int) -> None:
    num = 20_000
    uniforms = torch.tensor(np.random.default_rng(7).random(num))
    drawn = Counter(
        choose(torch.tensor([LOGITS]).expand(num, -1), uniforms, temperature, top_p, top_k).tolist()
    )
    wanted = expected(temperature, top_p, top_k)
    assert set(drawn) <= set(wanted)
    chi2 = sum((drawn[i] - num * p) ** 2 / (num * p) for i, p in wanted.items())
    assert len(wanted) == 1 or chi2 < CHI2_999[len(wanted) - 1]


def test_a_wider_vocabulary_than_the_first_look_gives_the_whole_nucleus() -> None:
    logits = torch.zeros(1, 3000)  # uniform: a nucleus of 0.9 holds 2700 tokens
    drawn = choose(logits.expand(2000, -1), torch.linspace(0, 0.9999, 2000).double(), 1.0, top_p=0.9)
    assert 1300 < len(set(drawn.tolist())) <= 2000
    assert drawn.unique().numel() > 1024


def test_zero_temperature_takes_the_likeliest() -> None:
    assert choose(torch.tensor([LOGITS]), torch.tensor([0.99]), 0.0).tolist() == [3]


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53, 1.0])
def test_impossible_tokens_are_never_drawn(uniform: float) -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 1.0, -math.inf]])
    assert choose(logits, torch.tensor([uniform], dtype=torch.float64), 1.0).item() in (1, 3)


def test_a_row_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 100, generator=generator)
    uniforms = torch.rand(40, generator=generator, dtype=torch.float64)
    together = choose(logits, uniforms, 0.9, 0.95, 50)
    alone = [choose(logits[i : i + 1], uniforms[i : i + 1], 0.9, 0.95, 50).item() for i in range(40)]
    assert together.tolist() == alone
