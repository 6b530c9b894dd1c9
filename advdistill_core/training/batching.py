"""From groups to optimizer steps to micro-batches, the same on every process.

An optimizer step is a function of the data, the seed and its number, so a resumed run
continues in the same order without replaying anything, and every process knows the whole
step, so that the loss's denominator needs no communication.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from advdistill_core.training.rows import Denominators, Group, Row
from advdistill_core.training.tree import Floats, Ints, Tree, build_tree


@dataclass(frozen=True)
class MicroBatch:
    """Trees laid end to end.

    Args:
        tree: all of them, as one; `sources` and `ends` count from its start.
        bounds: (S + 1,) where each of the S trees begins, and the end.
    """

    tree: Tree
    bounds: Ints


def lay_end_to_end(trees: Sequence[Tree]) -> MicroBatch:
    """Pack trees into one row of tokens."""
    bounds = np.cumsum([0, *(len(tree) for tree in trees)])

    def shifted(name: str) -> Ints:
        return np.concatenate([getattr(t, name) + b for t, b in zip(trees, bounds, strict=False)])

    packed = Tree(
        tokens=np.concatenate([t.tokens for t in trees]),
        positions=np.concatenate([t.positions for t in trees]),
        ends=shifted("ends"),
        sources=shifted("sources"),
        labels=np.concatenate([t.labels for t in trees]),
        coefficients=np.concatenate([t.coefficients for t in trees]),
    )
    return MicroBatch(packed, bounds)


def without_weight(batch: MicroBatch) -> MicroBatch:
    """The same computation with a gradient of zero, for a process that has nothing to do."""
    tree = batch.tree
    zero: Floats = np.zeros_like(tree.coefficients)
    return MicroBatch(
        Tree(tree.tokens, tree.positions, tree.ends, tree.sources, tree.labels, zero), batch.bounds
    )


def trees_of(group: Group, denominators: Denominators, budget_tokens: int, share: bool = True) -> list[Tree]:
    """A group's tree, cut into several when it alone is above the budget.

    Args:
        budget_tokens: no tree is larger unless it is a single response.
        share: False lays every response out with a prompt of its own.
    """

    def build(rows: Sequence[Row]) -> list[Tree]:
        tree = build_tree(
            group.prompt,
            [row.completion for row in rows],
            [denominators.coefficient(row) for row in rows],
        )
        if len(rows) == 1 or (share and len(tree) <= budget_tokens):
            return [tree]
        middle = len(rows) // 2
        return build(rows[:middle]) + build(rows[middle:])

    return build(sorted(group.rows, key=lambda row: row.completion))


def fill(trees: Sequence[Tree], budget_tokens: int) -> list[list[Tree]]:
    """Put trees into as few bins of at most `budget_tokens` as first-fit decreasing finds."""
    bins: list[list[Tree]] = []
    sizes: list[int] = []
    for tree in sorted(trees, key=len, reverse=True):
        fitting = (i for i, size in enumerate(sizes) if size + len(tree) <= budget_tokens)
        i = next(fitting, len(bins))
        if i == len(bins):
            bins.append([])
            sizes.append(0)
        bins[i].append(tree)
        sizes[i] += len(tree)
    return bins


@dataclass(frozen=True)
class Schedule:
    """Which groups each optimizer step trains, in which micro-batches, on which process.

    Args:
        groups: all groups, in any order: a group's place depends on its id and the seed.
        groups_per_step: prompts in an optimizer step; the last of an epoch may have fewer.
        epochs: passes over the groups.
        max_steps: steps in place of the epochs; 0 for none.
        seed: decides the order, another one in every epoch.
        reduction: see `Denominators`.
        max_tokens: L_max of the reduction `const`.
        batch_tokens: tokens of a micro-batch.
        share: whether a group's responses share their prefix.
        rank, world_size: this process among how many.
    """

    groups: Sequence[Group]
    groups_per_step: int
    epochs: int
    seed: int
    reduction: str
    max_tokens: int
    batch_tokens: int
    share: bool = True
    rank: int = 0
    world_size: int = 1
    max_steps: int = 0
    _orders: dict[int, list[Group]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.max_steps or self.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.groups) // self.groups_per_step)

    def groups_of(self, step: int) -> list[Group]:
        """The groups of a step, which counts from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[place * self.groups_per_step : (place + 1) * self.groups_per_step]

    def _order(self, epoch: int) -> list[Group]:
        def key(group: Group) -> bytes:
            return hashlib.blake2b(f"{self.seed}/{epoch}/{group.prompt_id}".encode()).digest()

        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = sorted(self.groups, key=key)
        return self._orders[epoch]

    def completion_tokens_of(self, step: int) -> int:
        """Labels of a step, before any are shared."""
        return sum(len(row.completion) for group in self.groups_of(step) for row in group.rows)

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """This process's part of a step; every process has the same number."""
        groups = self.groups_of(step)
        denominators = Denominators.of(groups, self.reduction, self.max_tokens)
        trees = [
            tree for group in groups for tree in trees_of(group, denominators, self.batch_tokens, self.share)
        ]
        mine, spare, missing = self.share_out(trees)
        return [lay_end_to_end(b) for b in mine] + [without_weight(lay_end_to_end(spare))] * missing

    def share_out(self, trees: Sequence[Tree]) -> tuple[list[list[Tree]], list[Tree], int]:
        """Bins of trees for this process, one to fill up with, and how often that is needed."""
        total = sum(len(tree) for tree in trees)
        bins = fill(trees, min(self.batch_tokens, -(-total // self.world_size)))
        bins.sort(key=lambda trees: sum(map(len, trees)), reverse=True)
        mine = bins[self.rank :: self.world_size]
        return mine, bins[-1], -(-len(bins) // self.world_size) - len(mine)
