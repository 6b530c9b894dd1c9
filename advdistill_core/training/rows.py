"""The training data: prompts with the weighted responses of their group, as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One response.

    Args:
        completion: the T token ids that carry a label: the response, and the end token
            when the response came to its end.
        weight: what its log-likelihood is multiplied with, the prompt's weight included.
        negative: weight as a wrong response in the second stage, the prompt's included.
        num_masked: how many of the first tokens a right response of the group shares.
    """

    completion: tuple[int, ...]
    weight: float
    negative: float = 0.0
    num_masked: int = 0


@dataclass(frozen=True)
class Group:
    """A prompt and its trained responses.

    Args:
        prompt_id: names it in messages and decides its place in the data order.
        prompt: the P >= 1 token ids before every response.
    """

    prompt_id: str
    prompt: tuple[int, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Denominators:
    """How the rows of one optimizer step are averaged: over all micro-batches and ranks."""

    reduction: str
    weighted_tokens: float
    weight: float
    num_groups: int
    max_tokens: int

    @classmethod
    def of(cls, groups: Sequence[Group], reduction: str, max_tokens: int) -> "Denominators":
        """Sum over all groups of an optimizer step.

        Args:
            max_tokens: L_max of the reduction `const`.
        """
        rows = [row for group in groups for row in group.rows]
        return cls(
            reduction,
            sum(row.weight * len(row.completion) for row in rows),
            sum(row.weight for row in rows),
            len(groups),
            max_tokens,
        )

    def coefficient(self, row: Row) -> float:
        """What each token's negative log-likelihood of a row is multiplied with.

        token_mean: w / sum of w T; seq_mean: w / T / sum of w; const: w / (G L_max), with
        G the groups of the step.
        """
        if self.reduction == "token_mean":
            return row.weight / self.weighted_tokens
        if self.reduction == "seq_mean":
            return row.weight / len(row.completion) / self.weight
        return row.weight / (self.num_groups * self.max_tokens)
