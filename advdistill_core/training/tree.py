"""A group as a tree of tokens, so that what its responses share is computed once.

The responses of a group share their prompt, and often how they begin. Laid out depth
first, token i sees token j exactly when `j <= i < ends[j]`: j is i itself or an ancestor.
That one comparison is the whole attention mask, of one group as of many laid end to end.
Labels lie on the edges: a token that several responses predict from the same place is
one label whose coefficient is their sum, so the gradient is that of separate rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """Tokens in depth-first order, and the labels on the edges.

    Args:
        tokens: (N,) ids.
        positions: (N,) distance from the root, which restarts for every group.
        ends: (N,) one past the last descendant of each token.
        sources: (L,) the token whose output predicts each label.
        labels: (L,) the ids to predict.
        coefficients: (L,) what each label's negative log-likelihood is multiplied with.
    """

    tokens: Ints
    positions: Ints
    ends: Ints
    sources: Ints
    labels: Ints
    coefficients: Floats

    def __len__(self) -> int:
        return len(self.tokens)


def build_tree(
    prompt: Sequence[int], completions: Sequence[Sequence[int]], coefficients: Sequence[float]
) -> Tree:
    """Lay a group out.

    The last token of a completion is predicted but predicts nothing, so it is a label
    only. Completions in lexicographic order are in depth-first order.

    Args:
        prompt: P >= 1 token ids.
        completions: token ids of each response, at least one each.
        coefficients: one per response, for each of its tokens.
    """
    if not len(prompt) or not all(len(c) for c in completions):
        raise ValueError("a tree needs a prompt and completions of at least one token")
    order = sorted(range(len(completions)), key=lambda i: tuple(completions[i]))
    total = len(prompt) + sum(len(c) for c in completions)
    builder = _Builder(np.asarray(prompt, dtype=np.int64), total)
    for i in order:
        builder.add(np.asarray(completions[i], dtype=np.int64), coefficients[i])
    return builder.finish()


class _Builder:
    """Adds completions in lexicographic order; keeps the path to the last one."""

    def __init__(self, prompt: Ints, room: int) -> None:
        self.depth = len(prompt)  # of the first completion token
        self.tokens = np.empty(room, dtype=np.int64)
        self.positions = np.empty(room, dtype=np.int64)
        self.ends = np.empty(room, dtype=np.int64)
        self.sources = np.empty(room, dtype=np.int64)
        self.labels = np.empty(room, dtype=np.int64)
        self.coefficients = np.zeros(room, dtype=np.float64)
        self.tokens[: self.depth] = prompt
        self.positions[: self.depth] = np.arange(self.depth)
        self.num_tokens, self.num_labels = self.depth, 0
        self.last = np.empty(0, dtype=np.int64)
        self.nodes = np.empty(0, dtype=np.int64)  # of the last completion, without its last token
        self.edges = np.empty(0, dtype=np.int64)  # labels of the last completion

    def add(self, completion: Ints, coefficient: float) -> None:
        shared = _common_prefix(self.last, completion)
        kept = min(shared, len(self.nodes), len(completion) - 1)
        self._close(kept)
        fresh = np.arange(self.num_tokens, self.num_tokens + len(completion) - 1 - kept)
        self.tokens[fresh] = completion[kept:-1]
        self.positions[fresh] = self.depth + np.arange(kept, len(completion) - 1)
        self.nodes = np.concatenate([self.nodes[:kept], fresh])
        new = np.arange(self.num_labels, self.num_labels + len(completion) - shared)
        self.labels[new] = completion[shared:]
        self.sources[new] = np.concatenate([[self.depth - 1], self.nodes])[shared:]
        self.edges = np.concatenate([self.edges[:shared], new])
        self.coefficients[self.edges] += coefficient
        self.num_tokens += len(fresh)
        self.num_labels += len(new)
        self.last = completion

    def _close(self, kept: int) -> None:
        """Nothing more can be below the nodes that the next completion leaves."""
        self.ends[self.nodes[kept:]] = self.num_tokens

    def finish(self) -> Tree:
        self._close(0)
        n, m = self.num_tokens, self.num_labels
        self.ends[: self.depth] = n
        return Tree(
            self.tokens[:n],
            self.positions[:n],
            self.ends[:n],
            self.sources[:m],
            self.labels[:m],
            self.coefficients[:m],
        )


def _common_prefix(a: Ints, b: Ints) -> int:
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n
