"""The second stage: its loss against a naive fp64 reference, its bounds and its guard."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from advdistill_core.config import StudentConfig
from advdistill_core.training.forward import attach, detach, model_inputs
from advdistill_core.training.negatives import CLAMP, chosen_only, objective_of, second_stage, with_extra
from advdistill_core.training.paired import PairedSchedule, common_prefix
from advdistill_core.training.rows import Row

SHAPES = ["llama", "qwen2", "gpt2"]
KINDS = ["unlikelihood", "margin", "redi"]


def stage(kind, **negatives):
    return StudentConfig(negatives={"kind": kind, **negatives}, max_seq_tokens=32)


def pairs(lab, seed=0, num_groups=5):
    """Groups whose wrong responses begin like right ones, are one's prefix, or share nothing."""
    found = []
    for i, group in enumerate(lab.build_groups(seed, num_groups)):
        right = group.rows[: 1 + i % 2]
        stem = right[0].completion
        wrong = [(*stem[:1], 27, 28), (28, *stem), stem[:-1] or (27,), (*stem, 26)]
        wrong += [r.completion for r in group.rows[1 + i % 2 :]]
        wrong = [c for c in wrong if all(c != r.completion for r in right)]
        rows = [
            Row(c, 0.0, 0.1 + 0.2 * j, max(common_prefix(c, r.completion) for r in right))
            for j, c in enumerate(wrong[: 2 + i])
        ]
        found.append(replace(group, rows=(*right, *rows)))
    return found


def token_log_probs(model, group, row):
    ids = torch.tensor([[*group.prompt, *row.completion]])
    log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    places = range(len(group.prompt), ids.shape[1])
    return torch.stack([log_probs[t - 1, ids[0, t]] for t in places])


def naive_negative(model, groups, kind, reduction, margin=0.5, max_tokens=32):
    """METHOD section 5, one row at a time."""
    total, divisor = torch.zeros((), dtype=torch.float64), 0.0
    for group in groups:
        own = sum(r.weight for r in group.rows)
        for row in (r for r in group.rows if r.negative):
            log_p = token_log_probs(model, group, row)
            if kind == "margin":
                for other in (r for r in group.rows if r.weight):
                    gap = token_log_probs(model, group, other).mean() - log_p.mean()
                    total = total + other.weight / own * row.negative * torch.relu(margin - gap)
                divisor += row.negative
                continue
            if kind == "unlikelihood":
                log_p = log_p[row.num_masked :]
                each = -torch.log1p(-torch.clamp(log_p.exp(), max=1 - CLAMP))
            else:
                each = log_p
            length = len(each)
            if not length:
                continue
            total = total + row.negative * (each.sum() / length if reduction == "seq_mean" else each.sum())
            divisor += row.negative * (length if reduction == "token_mean" else 1)
    return total / (len(groups) * max_tokens if kind != "margin" and reduction == "const" else divisor)


def naive(lab, model, groups, config):
    kind, reduction = config.negatives.kind, second_stage(config).reduction
    positive = lab.naive_loss(model, chosen_only(groups), reduction, 32)
    negative = naive_negative(model, groups, kind, reduction, config.negatives.margin)
    loss = positive + config.negatives.factor * negative
    loss.backward()
    return loss.item(), lab.gradients(model)


def ours(lab, model, groups, config, *, batch_tokens=1000, share=True, fused=True, world_size=1):
    objective, attention = objective_of(config), model.config._attn_implementation
    attach(model, share, fused)
    steps = [
        PairedSchedule(
            groups, len(groups), 1, 0, second_stage(config).reduction, 32, batch_tokens, share, rank,
            world_size,
        ).paired(0)
        for rank in range(world_size)
    ]  # fmt: skip
    looks = [[look(model, b.batch, share) for b in step.batches] for step in steps]
    total = 0.0
    # every process adds up what all of them have: first their own, to know the sum
    sums = []
    for step, nll in zip(steps, looks, strict=True):
        objective.extra(step, nll, lambda own: sums.append(own) or own, True)
    for rank, (step, nll) in enumerate(zip(steps, looks, strict=True)):
        extra = objective.extra(step, nll, lambda own: np.sum(sums, axis=0), rank == 0)
        for batch, more in zip(step.batches, extra.coefficients, strict=True):
            loss = model(**model_inputs(with_extra(batch, more), torch.device("cpu"), share))["loss"]
            loss.backward()
            total += loss.item()
        total += extra.shift
    detach(model, attention)
    return total, lab.gradients(model)


def look(model, batch, share):
    inputs = model_inputs(batch, torch.device("cpu"), share)
    inputs["layout"].per_label = True
    return model(**inputs)["nll"].double().detach().numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_equal_the_naive_reference(lab, shape, kind):
    model, groups, config = lab.build_model(shape), pairs(lab), stage(kind)
    lab.assert_same(ours(lab, model, groups, config), naive(lab, model, groups, config))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "layout",
    [{"batch_tokens": 20}, {"share": False}, {"fused": False}, {"world_size": 2, "batch_tokens": 30}],
)
def test_every_layout_gives_the_same_gradients(lab, kind, layout):
    model, groups, config = lab.build_model("qwen2"), pairs(lab, 1), stage(kind, strength=0.7)
    lab.assert_same(ours(lab, model, groups, config, **layout), naive(lab, model, groups, config))


@pytest.mark.parametrize("reduction", ["seq_mean", "const"])
def test_unlikelihood_in_the_other_reductions(lab, reduction):
    model, groups = lab.build_model(), pairs(lab, 2)
    config = stage("unlikelihood").model_copy(update={"reduction": reduction})
    lab.assert_same(ours(lab, model, groups, config), naive(lab, model, groups, config))
