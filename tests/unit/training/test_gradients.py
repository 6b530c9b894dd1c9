"""Loss and gradients of the fast paths against the naive fp64 reference."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from advdistill_core.training.batching import lay_end_to_end, without_weight
from advdistill_core.training.forward import attach, detach, model_inputs, probe
from advdistill_core.training.loss import weighted_nll
from advdistill_core.training.rows import Group, Row
from advdistill_core.training.tree import build_tree

SHAPES = ["llama", "qwen2", "gpt2"]
REDUCTIONS = ["token_mean", "seq_mean", "const"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shared_and_packed_equals_naive(lab, shape, reduction):
    model, groups = lab.build_model(shape), lab.build_groups()
    expected = lab.naive(model, groups, reduction)
    lab.assert_same(lab.ours(model, groups, reduction), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "layout",
    [
        {"batch_tokens": 16},  # many micro-batches of unequal size, groups cut apart
        {"batch_tokens": 1},  # every response alone
        {"share": False},  # padded on the right
        {"share": False, "batch_tokens": 20},
        {"fused": False},  # all logits at once
        {"share": False, "fused": False},
        {"world_size": 2, "batch_tokens": 30},
        {"world_size": 3},
        {"world_size": 40, "batch_tokens": 1},  # more processes than responses
    ],
)
def test_every_layout_gives_the_same_gradients(lab, shape, layout):
    model, groups = lab.build_model(shape), lab.build_groups(seed=1)
    lab.assert_same(lab.ours(model, groups, **layout), lab.naive(model, groups))


@pytest.mark.parametrize("rows_per_chunk", [1, 3, 7])
def test_the_output_layer_in_chunks(lab, monkeypatch, rows_per_chunk):
    model, groups = lab.build_model("qwen2"), lab.build_groups(seed=2)
    expected = lab.naive(model, groups)
    chunk_bytes = rows_per_chunk * lab.VOCABULARY * 8
    monkeypatch.setattr("advdistill_core.training.loss.CHUNK_BYTES", chunk_bytes)
    lab.assert_same(lab.ours(model, groups), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_in_as_many_pieces_as_there_are_branches(lab, monkeypatch, shape):
    monkeypatch.setattr("advdistill_core.training.pieces.CALL_PAIRS", 0)
    model, groups = lab.build_model(shape), lab.build_groups(seed=10)
    lab.assert_same(lab.ours(model, groups), lab.naive(model, groups))


def test_attention_dropout_is_the_same_in_both_passes(lab, monkeypatch):
    """By finite differences, with the generator set back before every call."""
    monkeypatch.setattr("advdistill_core.training.pieces.CALL_PAIRS", 0)
    model, groups = lab.build_model("llama", attention_dropout=0.4), lab.build_groups(seed=11)[:2]
    model.train()

    def loss_and_gradients():
        torch.manual_seed(0)
        return lab.ours(model, groups)

    _, gradients = loss_and_gradients()
    for name in ("model.layers.0.self_attn.v_proj.weight", "model.layers.1.self_attn.q_proj.weight"):
        flat = model.get_parameter(name).data.view(-1)
        value = flat[5].item()
        flat[5] = value + 1e-6
        above = loss_and_gradients()[0]
        flat[5] = value - 1e-6
        slope = (above - loss_and_gradients()[0]) / 2e-6
        flat[5] = value
        assert gradients[name].view(-1)[5].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
    torch.manual_seed(1)
    assert lab.ours(model, groups)[0] != loss_and_gradients()[0]  # dropout is on at all


def test_order_of_rows_and_groups_does_not_matter(lab):
    model, groups = lab.build_model(), lab.build_groups(seed=3)
    turned = [replace(g, rows=g.rows[::-1]) for g in groups[::-1]]
    lab.assert_same(lab.ours(model, turned), lab.naive(model, groups))


def test_activation_checkpointing_changes_nothing(lab):
    model, groups = lab.build_model(), lab.build_groups(seed=4)
    expected = lab.naive(model, groups)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    lab.assert_same(lab.ours(model, groups), expected)


def test_one_response_with_token_mean_is_plain_cross_entropy(lab):
    """Against the model's own loss on a padded batch, from left and right."""
    model = lab.build_model()
    groups = [
        Group(f"{i}", (3, 4, 5)[: 1 + i], (Row(c, 1.0),)) for i, c in enumerate([(6, 7), (8,), (9, 2, 4)])
    ]
    got = lab.ours(model, groups)
    for left in (False, True):
        width = 6
        ids, mask, labels = (torch.full((3, width), v) for v in (17, 0, -100))
        for i, g in enumerate(groups):
            tokens = torch.tensor([*g.prompt, *g.rows[0].completion])
            start = width - len(tokens) if left else 0
            place = slice(start, start + len(tokens))
            ids[i, place], mask[i, place] = tokens, 1
            labels[i, start + len(g.prompt) : start + len(tokens)] = torch.tensor(g.rows[0].completion)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        model(input_ids=ids, attention_mask=mask, position_ids=positions, labels=labels).loss.backward()
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        lab.assert_same(got, (loss.item(), lab.gradients(model)), 1e-6)  # its own loss is in fp32


def test_uniform_weights_with_token_mean_are_plain_cross_entropy(lab):
    model, groups = lab.build_model(), lab.build_groups(seed=5)
    uniform = [replace(g, rows=tuple(replace(r, weight=0.125) for r in g.rows)) for g in groups]
    nll, count = torch.zeros((), dtype=torch.float64), 0
    for g in uniform:
        for r in g.rows:
            logits = model(torch.tensor([[*g.prompt, *r.completion]])).logits[0, len(g.prompt) - 1 : -1]
            nll = nll + F.cross_entropy(logits, torch.tensor(r.completion), reduction="sum")
            count += len(r.completion)
    (nll / count).backward()
    expected = (nll / count).item(), lab.gradients(model)
    lab.assert_same(lab.ours(model, uniform), expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scaling_all_weights(lab, reduction):
    """Changes nothing, except for `const`, where it scales the loss."""
    model, groups = lab.build_model(), lab.build_groups(seed=6)
    scaled = [replace(g, rows=tuple(replace(r, weight=7 * r.weight) for r in g.rows)) for g in groups]
    loss, gradients = lab.ours(model, groups, reduction)
    factor = 7 if reduction == "const" else 1
    lab.assert_same(
        lab.ours(model, scaled, reduction), (factor * loss, {n: factor * g for n, g in gradients.items()})
    )


@pytest.mark.parametrize("reduction", ["token_mean", "seq_mean"])
def test_rows_of_weight_zero_have_no_influence(lab, reduction):
    model, groups = lab.build_model(), lab.build_groups(seed=7)
    extra = [
        replace(g, rows=(*g.rows, Row((9, 9, 9, 9), 0.0), Row(g.rows[0].completion, 0.0))) for g in groups
    ]
    lab.assert_same(lab.ours(model, extra, reduction), lab.naive(model, groups, reduction))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_integer_weights_equal_physical_copies(lab, reduction):
    model = lab.build_model()
    once = [
        Group("a", (3, 4), (Row((5, 6), 3.0), Row((7,), 1.0))),
        Group("b", (8,), (Row((9, 10, 11), 2.0),)),
    ]
    copies = [
        replace(g, rows=tuple(Row(r.completion, 1.0) for r in g.rows for _ in range(int(r.weight))))
        for g in once
    ]
    expected = lab.naive(model, copies, reduction)
    lab.assert_same(lab.ours(model, once, reduction), expected)
    lab.assert_same(lab.ours(model, copies, reduction), expected)


def test_zero_one_weights_equal_training_on_the_filtered_rows(lab):
    model, groups = lab.build_model(), lab.build_groups(seed=8)
    marked = [
        replace(g, rows=tuple(replace(r, weight=float(i % 2 == 0)) for i, r in enumerate(g.rows)))
        for g in groups
    ]
    kept = [replace(g, rows=tuple(r for r in g.rows if r.weight)) for g in marked]
    lab.assert_same(lab.ours(model, marked), lab.naive(model, kept))


def test_merging_duplicates_leaves_the_gradient(lab):
    model = lab.build_model()
    apart = Group("a", (3, 4), (Row((5, 6), 0.25), Row((7,), 0.5), Row((5, 6), 0.125)))
    merged = Group("a", (3, 4), (Row((5, 6), 0.375), Row((7,), 0.5)))
    expected = lab.naive(model, [apart])
    lab.assert_same(lab.ours(model, [merged]), expected)
    lab.assert_same(lab.ours(model, [apart]), expected)


def test_a_batch_without_weight_has_a_zero_gradient(lab):
    model = lab.build_model()
    batch = without_weight(lay_end_to_end([build_tree((3, 4), [(5, 6), (7,)], [0.5, 0.5])]))
    attach(model, shared=True, fused=True)
    model(**model_inputs(batch, torch.device("cpu"), True))["loss"].backward()
    assert all(not g.any() for g in lab.gradients(model).values())
    detach(model, "sdpa")


def test_logits_at_t_predict_the_next_token_by_hand(lab):
    """No layers: logits are embedding @ rmsnorm(embedding[last token]) and nothing else."""
    model = lab.build_model("llama", num_hidden_layers=0)
    embedding = model.get_input_embeddings().weight.detach()
    prompt, label = (3, 11), 7
    x = embedding[11]
    norm = math.sqrt(sum(float(v) ** 2 for v in x) / len(x) + model.config.rms_norm_eps)
    logits = [sum(float(a) * float(b) / norm for a, b in zip(row, x, strict=True)) for row in embedding]
    by_hand = math.log(sum(math.exp(v) for v in logits)) - logits[label]
    loss, _ = lab.ours(model, [Group("a", prompt, (Row((label,), 1.0),))])
    assert loss == pytest.approx(by_hand, rel=1e-9)


def test_no_gradient_goes_through_the_weights():
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    coefficients = torch.ones(4, requires_grad=True)
    weighted_nll(hidden, weight, None, torch.tensor([0, 1, 2, 3]), coefficients).backward()
    assert coefficients.grad is None
    assert hidden.grad is not None


@pytest.mark.parametrize("bias", [True, False])
def test_weighted_nll_by_finite_differences(bias):
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (6, 5))
    offset = torch.randn(5, dtype=torch.float64, requires_grad=True) if bias else None
    labels, coefficients = torch.tensor([0, 4, 2, 2, 1, 3]), torch.rand(6, dtype=torch.float64)

    def loss(h, w, b):
        return weighted_nll(h, w, b, labels, coefficients) * 1.5

    inputs = (hidden, weight, offset)
    expected = (F.cross_entropy(F.linear(*inputs), labels, reduction="none") * coefficients).sum() * 1.5
    assert loss(*inputs).item() == pytest.approx(expected.item(), rel=1e-12)
    numeric = []
    for x in inputs:
        if x is None:
            continue
        flat, slope = x.detach().view(-1), torch.empty(x.numel(), dtype=torch.float64)
        for i in range(x.numel()):
            value = flat[i].item()
            flat[i] = value + 1e-6
            above = loss(*inputs).item()
            flat[i] = value - 1e-6
            slope[i] = (above - loss(*inputs).item()) / 2e-6
            flat[i] = value
        numeric.append(slope.view_as(x))
    loss(*inputs).backward()
    for x, slope in zip([x for x in inputs if x is not None], numeric, strict=True):
        assert (x.grad - slope).abs().max() < 1e-7


def test_log_softmax_is_in_fp32_when_the_weights_are_in_bf16():
    torch.manual_seed(0)
    hidden, weight = torch.randn(8, 16).bfloat16(), torch.randn(500, 16).bfloat16()
    labels, coefficients = torch.arange(8), torch.full((8,), 1 / 8)
    logits = (hidden @ weight.T).float()
    expected = F.cross_entropy(logits, labels).item()
    assert weighted_nll(hidden, weight, None, labels, coefficients).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_probe_finds_what_a_model_allows(lab):
    from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

    for shape in SHAPES:
        model = lab.build_model(shape, dtype=torch.float32)
        assert probe(model, 64) == (True, True)
        assert model.config._attn_implementation == "sdpa"
        assert "forward" not in model.__dict__
    sizes = {
        "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.4,
    }  # fmt: skip
    windowed = MistralForCausalLM(MistralConfig(**sizes, sliding_window=40))
    assert probe(windowed, 64) == (False, True)  # rows longer than the window
    assert probe(windowed, 40) == (True, True)
    capped = Gemma2ForCausalLM(Gemma2Config(**sizes, head_dim=4, query_pre_attn_scalar=4))
    assert probe(capped, 64) == (False, False)  # soft caps on attention and logits


def test_a_model_without_the_fast_paths_gets_the_same_gradients(lab):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=lab.VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=4, initializer_range=0.4, sliding_window=4,
        )
    ).double()  # fmt: skip
    groups = lab.build_groups(seed=9)
    expected = lab.naive(model, groups)
    lab.assert_same(lab.ours(model, groups, share=False, fused=False, batch_tokens=30), expected, 1e-6)
