"""The tree layout: what it holds, and that it is as small as claimed."""

import numpy as np
import pytest
import torch

from advdistill_core.training import pieces
from advdistill_core.training.attention import sees
from advdistill_core.training.batching import Schedule, fill, lay_end_to_end
from advdistill_core.training.tree import build_tree


def paths(tree):
    """For each label: the tokens seen by its source, in order, and the label."""
    visible = sees(torch.from_numpy(tree.ends)).numpy()
    found = {}
    for source, label, coefficient in zip(tree.sources, tree.labels, tree.coefficients, strict=True):
        seen = np.flatnonzero(visible[source])
        assert (tree.positions[seen] == np.arange(len(seen))).all()
        found[(*tree.tokens[seen].tolist(), int(label))] = float(coefficient)
    return found


def test_a_tree_by_hand():
    #   1 2 -> 5 6 (label only at the end), 5 7 8, 9
    tree = build_tree((1, 2), [(5, 7, 8), (9,), (5, 6)], [0.3, 0.2, 0.5])
    assert tree.tokens.tolist() == [1, 2, 5, 7]
    assert tree.positions.tolist() == [0, 1, 2, 3]
    assert tree.ends.tolist() == [4, 4, 4, 4]
    assert paths(tree) == pytest.approx(
        {(1, 2, 5): 0.8, (1, 2, 5, 6): 0.5, (1, 2, 5, 7): 0.3, (1, 2, 5, 7, 8): 0.3, (1, 2, 9): 0.2}
    )


def test_siblings_do_not_see_each_other():
    tree = build_tree((1,), [(5, 6, 2), (7, 8, 2)], [1.0, 1.0])
    assert tree.tokens.tolist() == [1, 5, 6, 7, 8]
    assert sees(torch.from_numpy(tree.ends)).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]


def test_every_completion_is_a_path(lab):
    for seed in range(20):
        for group in lab.build_groups(seed):
            expected: dict[tuple[int, ...], float] = {}
            for row in group.rows:
                for t in range(len(row.completion)):
                    key = (*group.prompt, *row.completion[: t + 1])
                    expected[key] = expected.get(key, 0.0) + row.weight
            tree = build_tree(
                group.prompt, [r.completion for r in group.rows], [r.weight for r in group.rows]
            )
            assert paths(tree) == pytest.approx(expected)
            # as few tokens as there are distinct beginnings that something follows
            assert len(tree) == len(group.prompt) + len(
                {r.completion[:t] for r in group.rows for t in range(1, len(r.completion))}
            )


def test_pieces_see_what_the_tree_lets_them_see(lab, monkeypatch):
    for call_pairs in (0, 20, 10**9):
        monkeypatch.setattr(pieces, "CALL_PAIRS", call_pairs)
        for seed in range(10):
            batch = lay_end_to_end(
                [
                    build_tree(g.prompt, [r.completion for r in g.rows], [1.0] * len(g.rows))
                    for g in lab.build_groups(seed)
                ]
            )
            found = pieces.cut(batch.tree.ends.tolist(), batch.bounds.tolist())
            assert [p.start for p in found] == [0, *(p.stop for p in found)][:-1]  # every token, in order
            expected = sees(torch.from_numpy(batch.tree.ends)).numpy()
            for piece in found:
                above = {i for a, b in piece.above for i in range(a, b)}
                for i in range(piece.start, piece.stop):
                    seen = set(np.flatnonzero(expected[i]).tolist())
                    assert above <= seen <= above | set(range(piece.start, piece.stop))
            if call_pairs == 10**9:
                assert len(found) == len(batch.bounds) - 1


def test_responses_of_real_length_are_cut_apart():
    """8 responses of 120 tokens to a prompt of 90: a fifth of the pairs of one block."""
    tree = build_tree(range(90), [[1000 + i, *range(120)] for i in range(8)], [1.0] * 8)
    found = pieces.cut(tree.ends.tolist(), [0, len(tree)])
    assert [p.stop - p.start for p in found] == [90, *[120] * 8]
    assert {p.above for p in found[1:]} == {((0, 90),)}
    pairs = sum((p.stop - p.start) * (p.stop - p.start + sum(b - a for a, b in p.above)) for p in found)
    assert pairs < 0.21 * len(tree) ** 2


def test_trees_laid_end_to_end_stay_apart():
    trees = [build_tree((1,), [(5, 6, 2), (7, 8)], [1.0, 1.0]), build_tree((3, 4), [(5, 2)], [1.0])]
    packed = lay_end_to_end(trees)
    visible = sees(torch.from_numpy(packed.tree.ends)).numpy()
    n = len(trees[0])
    assert not visible[n:, :n].any()
    assert not visible[:n, n:].any()
    assert packed.bounds.tolist() == [0, n, n + len(trees[1])]
    assert paths(packed.tree) == {**paths(trees[0]), **paths(trees[1])}


def test_a_tree_needs_a_prompt_and_tokens():
    for prompt, completions in (((), [(1,)]), ((1,), [()])):
        with pytest.raises(ValueError, match="at least one"):
            build_tree(prompt, completions, [1.0])


def test_bins_hold_everything_once_and_stay_within_the_budget(lab):
    trees = [
        build_tree(g.prompt, [r.completion for r in g.rows], [r.weight for r in g.rows])
        for g in lab.build_groups(num_groups=30)
    ]
    bins = fill(trees, 40)
    assert sorted(map(len, trees)) == sorted(len(t) for b in bins for t in b)
    assert all(sum(map(len, b)) <= 40 or len(b) == 1 for b in bins)
    assert len(bins) <= 1.3 * sum(map(len, trees)) / 40


def schedule(groups, **changes):
    return Schedule(**{
        "groups": groups, "groups_per_step": 4, "epochs": 3, "seed": 0, "reduction": "token_mean",
        "max_tokens": 32, "batch_tokens": 64, **changes,
    })  # fmt: skip


def test_every_epoch_trains_every_group_once_in_another_order(lab):
    groups = lab.build_groups(num_groups=10)
    plan = schedule(groups)
    assert (len(plan), plan.steps_per_epoch) == (9, 3)
    orders = [[g.prompt_id for s in range(3 * e, 3 * e + 3) for g in plan.groups_of(s)] for e in range(3)]
    for order in orders:
        assert sorted(order) == sorted(g.prompt_id for g in groups)
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_depends_on_the_seed_and_on_nothing_else(lab):
    groups = lab.build_groups(num_groups=10)
    ids = [[g.prompt_id for g in schedule(groups).groups_of(s)] for s in range(9)]
    again = schedule(groups[::-1], batch_tokens=7, rank=1, world_size=2)
    assert [[g.prompt_id for g in again.groups_of(s)] for s in (8, *range(8))] == [ids[8], *ids[:8]]
    assert [[g.prompt_id for g in schedule(groups, seed=1).groups_of(s)] for s in range(9)] != ids


@pytest.mark.parametrize("max_steps", [1, 5, 11])
def test_steps_in_place_of_epochs(lab, max_steps):
    """Ten groups by four are three steps a pass; passes go on until the steps are done."""
    plan = schedule(lab.build_groups(num_groups=10), epochs=1, max_steps=max_steps)
    assert len(plan) == max_steps
    ids = [g.prompt_id for step in range(max_steps) for g in plan.groups_of(step)]
    passes = [ids[start : start + 10] for start in range(0, len(ids), 10)]
    assert all(len(set(found)) == len(found) for found in passes)
    assert len(ids) == 10 * (max_steps // 3) + 4 * (max_steps % 3)
