"""Deliberate faults: each must make the comparison with the reference fail.

A comparison that no fault can fail proves nothing, so every way of getting this wrong
that we could think of is planted here.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from advdistill_core.training import attention, batching, forward, loss, rows, tree
from advdistill_core.training import data as data_module

FAULTS: dict[str, Any] = {}


def fault(plant: Any) -> Any:
    FAULTS[plant.__name__] = plant
    return plant


def change_tree(monkeypatch: Any, change: Any) -> None:
    build = tree.build_tree
    monkeypatch.setattr(batching, "build_tree", lambda *args: change(build(*args)))


@fault
def sign_turned(monkeypatch):
    real = loss.weighted_nll
    monkeypatch.setattr(forward, "weighted_nll", lambda *args: -real(*args))


@fault
def siblings_see_each_other(monkeypatch):
    def causal_only(ends):
        return torch.ones(len(ends), len(ends), dtype=torch.bool).tril()

    monkeypatch.setattr(attention, "sees", causal_only)


@fault
def prompt_hidden_from_the_responses(monkeypatch):
    real = attention.sees

    def without_first_token(ends):
        mask = real(ends)
        mask[1:, 0] = False
        return mask

    monkeypatch.setattr(attention, "sees", without_first_token)


@fault
def future_visible(monkeypatch):
    real = attention.sees
    monkeypatch.setattr(attention, "sees", lambda ends: real(ends) | real(ends).T)


@fault
def subtree_ends_one_early(monkeypatch):
    change_tree(monkeypatch, lambda t: replace(t, ends=np.maximum(t.ends - 1, np.arange(len(t)) + 1)))


@fault
def trees_of_a_batch_see_each_other(monkeypatch):
    real = attention.tree_mask
    monkeypatch.setattr(
        forward, "tree_mask", lambda ends, bounds: real(torch.full_like(ends, len(ends)), (0, bounds[-1]))
    )


@fault
def positions_not_restarted(monkeypatch):
    change_tree(monkeypatch, lambda t: replace(t, positions=np.arange(len(t))))


@fault
def positions_off_by_one_after_the_prompt(monkeypatch):
    change_tree(monkeypatch, lambda t: replace(t, positions=t.positions + (t.positions > 2)))


@fault
def labels_not_shifted(monkeypatch):
    change_tree(monkeypatch, lambda t: replace(t, sources=np.minimum(t.sources + 1, len(t) - 1)))


@fault
def merged_labels_keep_one_weight(monkeypatch):
    add = tree._Builder.add

    def overwrite(self, completion, coefficient):
        before = self.coefficients.copy()
        add(self, completion, coefficient)
        touched = self.coefficients != before
        self.coefficients[touched] = coefficient

    monkeypatch.setattr(tree._Builder, "add", overwrite)


@fault
def denominator_of_the_micro_batch(monkeypatch):
    lay = batching.lay_end_to_end

    def own_denominator(trees):
        batch = lay(trees)
        share = batch.tree.coefficients / batch.tree.coefficients.sum()
        return replace(batch, tree=replace(batch.tree, coefficients=share))

    monkeypatch.setattr(batching, "lay_end_to_end", own_denominator)


@fault
def denominator_of_this_process(monkeypatch):
    class Mine(rows.Denominators):
        @classmethod
        def of(cls, groups, reduction, max_tokens):
            return super().of(groups[::2], reduction, max_tokens)

    monkeypatch.setattr(batching, "Denominators", Mine)


@fault
def denominator_counts_rows_not_weight(monkeypatch):
    monkeypatch.setattr(
        rows.Denominators, "coefficient", lambda self, row: row.weight / self.num_groups / len(row.completion)
    )


@fault
def weights_forgotten(monkeypatch):
    monkeypatch.setattr(rows.Denominators, "coefficient", lambda self, row: 1 / self.weighted_tokens)


@fault
def last_token_not_learned(monkeypatch):
    build = tree.build_tree
    monkeypatch.setattr(
        batching,
        "build_tree",
        lambda prompt, completions, c: build(prompt, [x[:-1] or x for x in completions], c),
    )


@fault
def a_micro_batch_left_out(monkeypatch):
    real = batching.fill
    monkeypatch.setattr(batching, "fill", lambda trees, budget: real(trees, budget)[:-1])


@fault
def a_micro_batch_done_twice_to_fill_up(monkeypatch):
    monkeypatch.setattr(batching, "without_weight", lambda batch: batch)


@fault
def chunk_boundary_skipped(monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 5 * 29 * 8)
    real = range
    monkeypatch.setattr(loss, "range", lambda a, b, c: real(a, b - c, c), raising=False)


def step(lab, model, groups):
    """Packed, cut into micro-batches, on two processes: every mechanism takes part."""
    return lab.ours(model, groups, "token_mean", batch_tokens=30, world_size=2)


def test_without_a_fault_the_comparison_holds(lab):
    model, groups = lab.build_model(), lab.build_groups()
    lab.assert_same(step(lab, model, groups), lab.naive(model, groups))


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_noticed(lab, monkeypatch, name):
    model, groups = lab.build_model(), lab.build_groups()
    expected = lab.naive(model, groups)
    FAULTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        lab.assert_same(step(lab, model, groups), expected, tolerance=1e-4)


def test_the_end_token_after_a_truncated_response_would_be_noticed():
    class Tokenizer:
        eos_token_id = 99

        def __call__(self, text, add_special_tokens, split_special_tokens):
            assert split_special_tokens
            assert not add_special_tokens
            return {"input_ids": [1, 2]}

    assert data_module.encode_completion(Tokenizer(), "x", ended=False) == (1, 2)
    assert data_module.encode_completion(Tokenizer(), "x", ended=True) == (1, 2, 99)
