"""The second stage: its loss against a naive fp64 reference, its bounds and its guard."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from advdistill_core.config import StudentConfig
from advdistill_core.config.loading import build_config
from advdistill_core.errors import InputError
from advdistill_core.progress import silent
from advdistill_core.training.batching import lay_end_to_end
from advdistill_core.training.fit import Second, _Session, fit
from advdistill_core.training.forward import attach, detach, model_inputs
from advdistill_core.training.loss import label_nll, weighted_nll
from advdistill_core.training.negatives import CLAMP, chosen_only, objective_of, second_stage, with_extra
from advdistill_core.training.paired import PairedBatch, PairedSchedule, PairedStep, Place, common_prefix
from advdistill_core.training.rows import Group, Row
from advdistill_core.training.run import Job, train
from advdistill_core.training.tree import build_tree
from advdistill_core.weighting.negatives import negative_weights

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


# -- the second stage as it runs --------------------------------------------------------


def settings(kind="unlikelihood", **changes):
    negatives = {"kind": kind, "learning_rate": 1e-3, "epochs": 2, "max_drop": 100.0, **changes}
    return StudentConfig(
        learning_rate=1e-3, groups_per_step=2, checkpoint_every_steps=2, max_seq_tokens=32,
        negatives={k: v for k, v in negatives.items() if v is not None},
    )  # fmt: skip


def run(lab, folder, config, paired, events=None, **model):
    model = lab.build_model("llama", dtype=torch.float32, **model)
    job = Job(lab.build_groups(num_groups=6), paired)
    return train(model, job, config, folder, silent if events is None else events.append)


def weights(fitted):
    return {name: p.detach().clone() for name, p in fitted.model.named_parameters()}


def assert_bits(one, other):
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_strength_0_is_training_on_the_right_responses_alone_to_the_bit(lab, tmp_path):
    paired = pairs(lab, num_groups=6)
    zero = run(lab, tmp_path / "zero", settings(strength=0.0), paired)
    # the same two stages, the second one an ordinary training
    plain = settings("off", learning_rate=None, epochs=None, max_drop=None)
    first = run(lab, tmp_path / "plain", plain, ())
    then = plain.model_copy(update={"learning_rate": 1e-3, "epochs": 2})
    second = fit(first.model, chosen_only(paired), then, tmp_path / "then", silent)
    assert_bits(weights(zero), weights(second))
    assert [e["loss"] for e in zero.log] == [e["loss"] for e in first.log + second.log]
    # and the negatives do something
    other = run(lab, tmp_path / "some", settings(), paired)
    assert not torch.equal(weights(other)["model.norm.weight"], weights(zero)["model.norm.weight"])


def test_off_is_as_if_there_were_no_second_stage(lab, tmp_path):
    off = settings("off", learning_rate=None, epochs=None, max_drop=None)
    with_pairs = run(lab, tmp_path / "a", off, pairs(lab))
    assert_bits(weights(with_pairs), weights(run(lab, tmp_path / "b", off, ())))
    assert {e["stage"] for e in with_pairs.log} == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_step_is_that_of_the_reference(lab, tmp_path, kind):
    """As logged, before any step was taken; dropout would show in the comparison."""
    paired = [
        Group(g.prompt_id, g.prompt, tuple(r for r in g.rows if r.weight or r.negative)) for g in pairs(lab)
    ]
    config = settings(kind).model_copy(update={"groups_per_step": len(paired)})
    done = run(lab, tmp_path, config, paired)
    first = [e for e in done.log if e["stage"] == 1]
    model = lab.build_model("llama", dtype=torch.float32)
    fit(model, lab.build_groups(num_groups=6), config, tmp_path / "again", silent)
    expected, _ = naive(lab, model.double(), paired, config)
    assert done.log[len(first)]["loss"] == pytest.approx(expected, rel=1e-5)
    assert [e["step"] for e in done.log] == list(range(1, len(done.log) + 1))


def test_steps_of_both_stages_are_counted_as_one(lab, tmp_path):
    events = []
    done = run(lab, tmp_path, settings(), pairs(lab, num_groups=6), events)
    assert [(e.done, e.total) for e in events] == [(i, 9) for i in range(1, 10)]  # 3, then 2 x 3
    assert [e["stage"] for e in done.log] == [1] * 3 + [2] * 6
    assert done.notes["negatives"]["num_steps"] == 6


def test_the_guard_goes_back_to_the_last_good_checkpoint(lab, tmp_path):
    """redi at a rate far too high drags the right responses down."""
    config = settings("redi", learning_rate=0.3, epochs=20, max_drop=0.1, strength=5.0, guard_every_steps=2)
    done = run(lab, tmp_path, config, pairs(lab, num_groups=6))
    told = done.notes["negatives"]
    assert told["guard_stopped_at"] is not None
    looks = {e["step"]: e["chosen_log_prob"] for e in done.log if "chosen_log_prob" in e}
    assert looks.pop(told["guard_stopped_at"]) < told["chosen_log_prob_start"] - 0.1
    assert all(value >= told["chosen_log_prob_start"] - 0.1 for value in looks.values())
    assert told["kept_step"] == (max(looks) if looks else 3)
    start = run(lab, tmp_path / "start", settings("off", learning_rate=None, epochs=None, max_drop=None), ())
    if told["kept_step"] == 3:
        assert_bits(weights(done), weights(start))
    assert all(torch.isfinite(p).all() for p in done.model.parameters())


def test_the_guard_lets_a_little_pass_and_keeps_what_it_saw(lab, tmp_path):
    config = settings("redi", learning_rate=0.002, epochs=12, max_drop=0.5, strength=3.0, guard_every_steps=2)
    done = run(lab, tmp_path, config, pairs(lab, num_groups=6))
    told = done.notes["negatives"]
    passed = [
        e["step"] for e in done.log if e.get("chosen_log_prob", -99) >= told["chosen_log_prob_start"] - 0.5
    ]
    assert len(passed) >= 2, "the case was to go back to a checkpoint of the stage"
    assert told["guard_stopped_at"] is not None
    assert told["kept_step"] == passed[-1] > 3
    kept = load_file(tmp_path / "negatives" / f"checkpoint-{passed[-1] - 3}" / "model.safetensors")
    for name, value in weights(done).items():
        assert torch.equal(kept[name], value), name


def test_the_first_look_sees_the_dropout_that_the_gradient_will_see(lab, tmp_path):
    """Over several micro-batches: coefficients of other draws would be those of another model."""
    config = settings().model_copy(update={"batch_tokens": 20, "groups_per_step": 6})
    model = lab.build_model("llama", dtype=torch.float32, attention_dropout=0.4)
    paired = pairs(lab, num_groups=6)
    attach(model, True, True)
    session = _Session(model, paired, second_stage(config), tmp_path, True, Second(3, tmp_path))
    batches = session.schedule.paired(0).batches
    assert len(batches) > 2
    model.train()
    torch.manual_seed(7)
    looks = session.trainer._look(model, batches)
    for batch, nll in zip(batches, looks, strict=True):
        ones = with_extra(batch, 1 - batch.batch.tree.coefficients)
        loss = model(**model_inputs(ones, torch.device("cpu"), True))["loss"]
        assert loss.item() == pytest.approx(nll.sum(), rel=1e-5)
    again = session.trainer._look(model, batches)
    assert abs(again[0].sum() - looks[0].sum()) > 1e-3  # dropout is on


@pytest.mark.parametrize("bias", [True, False])
def test_each_labels_cost_by_the_formula_and_in_chunks(bias, monkeypatch):
    torch.manual_seed(0)
    hidden, weight = torch.randn(6, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    offset = torch.randn(5, dtype=torch.float64) if bias else None
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    expected = functional.cross_entropy(functional.linear(hidden, weight, offset), labels, reduction="none")
    assert (label_nll(hidden, weight, offset, labels) - expected).abs().max() < 1e-12
    monkeypatch.setattr("advdistill_core.training.loss.CHUNK_BYTES", 4 * 5 * 8)  # 4 rows, then 2
    assert (label_nll(hidden, weight, offset, labels) - expected).abs().max() < 1e-12


def test_unlikelihood_has_the_gradient_that_it_should_have():
    """p in the wrong token's logit, -p p_j / (1 - p) in the others; by our coefficient."""
    torch.manual_seed(0)
    hidden = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([2])
    eye = torch.eye(7, dtype=torch.float64)
    cost = label_nll(hidden, eye, None, label)
    p = (-cost).exp()
    tree = build_tree((1,), [(2,)], [0.0])
    row = Row((2,), 0.0, 1.0)
    batch = PairedBatch(lay_end_to_end([tree]), (Place(0, 0, np.array([0])),))
    step = PairedStep([Group("g", (1,), (row,))], [batch])
    objective = objective_of(stage("unlikelihood", strength=1.0))
    extra = objective.extra(step, [cost.numpy()], lambda own: own, True)
    weighted_nll(hidden, eye, None, label, torch.from_numpy(extra.coefficients[0])).backward()
    others = hidden.detach().softmax(-1)[0]
    expected = -p * others / (1 - p)
    expected[2] = p
    assert (hidden.grad[0] - expected).abs().max() < 1e-12
    assert extra.shift + float(extra.coefficients[0] @ cost.numpy()) == pytest.approx(-float((1 - p).log()))


@pytest.mark.parametrize("kind", ["unlikelihood", "margin", "redi", "plain"])
def test_bounded_kinds_survive_200_steps_where_plain_log_p_diverges(lab, tmp_path, kind):
    """redi has no bound of its own: with its guard it survives, without it is plain +log p."""
    paired = pairs(lab, num_groups=2)
    config = settings(
        "redi" if kind == "plain" else kind,
        learning_rate=4e-3, epochs=200, strength=5.0 if kind == "plain" else 1.0,
        max_drop=0.1 if kind == "redi" else 100.0, guard_every_steps=25,
    ).model_copy(update={"checkpoint_every_steps": 1000})  # fmt: skip
    done = run(lab, tmp_path, config, paired)
    start = done.notes["negatives"]["chosen_log_prob_start"]
    with torch.no_grad():
        model = done.model.double()
        end = -float(lab.naive_loss(model, chosen_only(paired), "token_mean", 32))
        wrong = float(naive_negative(model, paired, "redi", "token_mean"))
    if kind == "plain":
        assert wrong < -10
        assert end < start - 1
        return
    assert kind == "redi" or sum(e["stage"] == 2 for e in done.log) == 200
    assert all(np.isfinite(e["loss"]) for e in done.log)
    assert all(torch.isfinite(p).all() for p in done.model.parameters())
    assert end > start - 0.1


@pytest.mark.parametrize("kind", ["nll", "log_p", "linear", "unbounded"])
def test_an_unbounded_kind_is_refused_in_one_line(kind):
    with pytest.raises(InputError, match=r"^student\.negatives\.kind: got .*no bound") as caught:
        build_config({"student": {"negatives": {"kind": kind}}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ignored",
    [
        {"negatives": {"strength": 0.2}},
        {"negatives": {"kind": "redi", "margin": 1.0}},
        {"early_stopping": {"patience": 1}},
        {"early_stopping": {"every_steps": 5, "metric": "loss", "max_new_tokens": 9}},
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(ignored):
    with pytest.raises(ValueError, match="would be ignored"):
        StudentConfig(**ignored)


def test_weights_of_wrong_responses_by_hand():
    a = np.array([0.9, -0.3, -0.6, np.nan, 0.1])
    right = np.array([True, False, False, False, False])
    assert negative_weights(a, right) == pytest.approx([0, 1 / 3, 2 / 3, 0, 0])
    assert not negative_weights(a, np.zeros(5, dtype=bool)).any()  # none right
    assert not negative_weights(np.array([0.5, 0.1]), np.array([True, False])).any()  # none below the mean
    assert not negative_weights(np.array([-0.5, 0.5]), np.array([True, True])).any()
    assert not negative_weights(
        np.array([np.nan, -0.5]), np.array([True, False])
    ).any()  # the right is ungraded
