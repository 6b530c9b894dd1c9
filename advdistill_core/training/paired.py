"""Optimizer steps of the second stage: right and wrong responses of a group in one tree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from advdistill_core.training.batching import MicroBatch, Schedule, lay_end_to_end, without_weight
from advdistill_core.training.rows import Denominators, Group, Row
from advdistill_core.training.tree import Ints, Tree, build_tree


@dataclass(frozen=True)
class Place:
    """Where a row is.

    Args:
        group: number of its group in the step; `row` is its number in the group.
        edges: (T,) its labels in the micro-batch.
    """

    group: int
    row: int
    edges: Ints


@dataclass(frozen=True)
class PairedBatch:
    """A micro-batch that knows its rows."""

    batch: MicroBatch
    places: tuple[Place, ...]


@dataclass(frozen=True)
class PairedStep:
    """This process's part of an optimizer step, and the groups of the whole step."""

    groups: list[Group]
    batches: list[PairedBatch]


@dataclass(frozen=True)
class PairedSchedule(Schedule):
    """Like `Schedule`; the coefficients of its trees are those of the right responses."""

    def paired(self, step: int) -> PairedStep:
        """This process's part of a step, which counts from 0."""
        groups = self.groups_of(step)
        denominators = Denominators.of(groups, self.reduction, self.max_tokens)
        placed = [
            found
            for number, group in enumerate(groups)
            for found in placed_trees(number, group, denominators, self.batch_tokens, self.share)
        ]
        places = {id(tree): found for tree, found in placed}
        mine, spare, missing = self.share_out([tree for tree, _ in placed])
        batches = [PairedBatch(lay_end_to_end(b), tuple(_shifted(b, places))) for b in mine]
        rest = PairedBatch(without_weight(lay_end_to_end(spare)), ())
        return PairedStep(groups, batches + [rest] * missing)


def _shifted(trees: Sequence[Tree], places: dict[int, list[Place]]) -> Iterator[Place]:
    start = 0
    for tree in trees:
        for place in places[id(tree)]:
            yield replace(place, edges=place.edges + start)
        start += len(tree.labels)


def placed_trees(
    number: int, group: Group, denominators: Denominators, budget_tokens: int, share: bool
) -> list[tuple[Tree, list[Place]]]:
    """The same trees as `batching.trees_of`, each with the places of its rows.

    Args:
        number: of the group in the step.
    """

    def build(rows: Sequence[tuple[int, Row]]) -> list[tuple[Tree, list[Place]]]:
        completions = [row.completion for _, row in rows]
        tree = build_tree(group.prompt, completions, [denominators.coefficient(row) for _, row in rows])
        if len(rows) == 1 or (share and len(tree) <= budget_tokens):
            edges = edges_of_rows(completions)
            return [(tree, [Place(number, i, e) for (i, _), e in zip(rows, edges, strict=True)])]
        middle = len(rows) // 2
        return build(rows[:middle]) + build(rows[middle:])

    return build(sorted(enumerate(group.rows), key=lambda row: row[1].completion))


def edges_of_rows(completions: Sequence[tuple[int, ...]]) -> list[Ints]:
    """The labels of each completion in the tree that `build_tree` makes of them.

    Args:
        completions: in ascending order.
    """
    last: tuple[int, ...] = ()
    edges = np.empty(0, dtype=np.int64)
    count, found = 0, []
    for completion in completions:
        shared = common_prefix(last, completion)
        fresh = np.arange(count, count + len(completion) - shared)
        edges, last = np.concatenate([edges[:shared], fresh]), completion
        count += len(fresh)
        found.append(edges)
    return found


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first items two sequences share."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
