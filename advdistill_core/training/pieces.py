"""Cutting a tree into pieces for attention.

Computed as one block, a tree of k responses spends most of its attention on pairs of
different responses, which do not see each other. Cut at a branching, each branch is a
call of its own with the tokens above it as further keys. A call costs something by
itself, so a small bushy subtree stays whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

CALL_PAIRS = 4096  # what a call costs, in pairs of a query and a key

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens that attend in one call.

    Args:
        start, stop: which tokens.
        above: ranges of the tokens outside the piece that all of it sees, in order.
    """

    start: int
    stop: int
    above: Ranges


def cut(ends: Sequence[int], bounds: Sequence[int]) -> list[Piece]:
    """Cut trees laid end to end into pieces, each where that saves work.

    Args:
        ends: one past the last descendant of each token.
        bounds: where each tree begins, and the end.
    """
    return [piece for start in bounds[:-1] for piece in _cut_below(ends, start, ())[1]]


def _cut_below(ends: Sequence[int], start: int, above: Ranges) -> tuple[int, list[Piece]]:
    """The cheapest pieces of the subtree at `start`, and their cost in pairs."""
    stop = ends[start]
    num_above = sum(b - a for a, b in above)
    whole = CALL_PAIRS + (stop - start) * (num_above + stop - start)
    branching = start + 1
    while branching < stop and ends[branching] == stop:
        branching += 1
    if branching == stop:
        return whole, [Piece(start, stop, above)]
    pieces = [Piece(start, branching, above)]
    cost = CALL_PAIRS + (branching - start) * (num_above + branching - start)
    below, child = _joined(above, start, branching), branching
    while child < stop:
        child_cost, child_pieces = _cut_below(ends, child, below)
        cost += child_cost
        pieces += child_pieces
        child = ends[child]
    return (cost, pieces) if cost < whole else (whole, [Piece(start, stop, above)])


def _joined(above: Ranges, start: int, stop: int) -> Ranges:
    if above and above[-1][1] == start:
        return (*above[:-1], (above[-1][0], stop))
    return (*above, (start, stop))
