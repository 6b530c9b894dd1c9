"""Learning from wrong responses, within bounds (METHOD section 5).

The loss is that of the right responses plus `factor` times one of

- unlikelihood (Welleck et al. 2020): -log(1 - min(p, 1 - 1e-4)) of each wrong token, except
  those that the response shares with the beginning of a right one;
- margin: max(0, margin - (s+ - s-)) of each pair, s the mean token log-probability;
- redi (Xu et al. 2025): s- beside -s+.

Each is a function of token log-probabilities, so its gradient is that of a weighted
negative log-likelihood whose coefficients follow from a first look at the probabilities.
Everything that makes the plain loss fast therefore holds here too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from advdistill_core.config.student import StudentConfig
from advdistill_core.training.batching import MicroBatch
from advdistill_core.training.paired import PairedBatch, PairedStep
from advdistill_core.training.rows import Denominators, Group
from advdistill_core.training.tree import Floats

CLAMP = 1e-4  # a token this near to certain is left alone

AddUp = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Extra:
    """What the wrong responses add to a step.

    Args:
        coefficients: for each micro-batch (L,), to be added to those of its labels.
        shift: what the loss is more than the negative log-likelihood under all coefficients.
    """

    coefficients: list[Floats]
    shift: float


@dataclass(frozen=True)
class Objective:
    """The negative part of the loss.

    Args:
        kind: unlikelihood, margin or redi.
        factor: its strength.
        margin: in nats per token.
        reduction, max_tokens: as for the right responses, see `rows.Denominators`.
    """

    kind: str
    factor: float
    margin: float
    reduction: str
    max_tokens: int

    @property
    def looks_first(self) -> bool:
        """Whether the coefficients depend on the model's probabilities."""
        return self.kind in ("unlikelihood", "margin")

    def extra(self, step: PairedStep, nll: Sequence[Floats | None], add_up: AddUp, first: bool) -> Extra:
        """Coefficients for this process's micro-batches.

        Args:
            nll: of each label of each micro-batch, (L,) in float64; None where not needed.
            add_up: sums an array over all processes.
            first: whether this is the first process, which alone counts what all share.
        """
        coefficients = [np.zeros(len(b.batch.tree.labels)) for b in step.batches]
        if self.kind == "redi":
            self._redi(step, coefficients)
            return Extra(coefficients, 0.0)
        if self.kind == "unlikelihood":
            value = self._unlikelihood(step, nll, coefficients)
        else:
            value = self._margin(step, nll, coefficients, add_up) * first
        known = sum(float(c @ n) for c, n in zip(coefficients, nll, strict=True) if n is not None)
        return Extra(coefficients, self.factor * value - known)

    def _redi(self, step: PairedStep, coefficients: list[Floats]) -> None:
        shares = self._shares(step.groups, masked=False)
        for into, batch in zip(coefficients, step.batches, strict=True):
            for place in batch.places:
                into[place.edges] -= self.factor * shares[place.group][place.row]

    def _unlikelihood(
        self, step: PairedStep, nll: Sequence[Floats | None], coefficients: list[Floats]
    ) -> float:
        """d/d nll of -log(1 - p) is -p / (1 - p), and 0 beyond the clamp."""
        shares, value = self._shares(step.groups, masked=True), 0.0
        for into, batch, costs in zip(coefficients, step.batches, nll, strict=True):
            for place in batch.places:
                share = shares[place.group][place.row]
                if not share or costs is None:
                    continue
                edges = place.edges[step.groups[place.group].rows[place.row].num_masked :]
                p = np.exp(-costs[edges])
                rest = np.maximum(-np.expm1(-costs[edges]), CLAMP)  # 1 - min(p, 1 - CLAMP)
                value -= share * float(np.log(rest).sum())
                into[edges] -= self.factor * share * np.where(rest > CLAMP, p / rest, 0.0)
        return value

    def _shares(self, groups: Sequence[Group], masked: bool) -> list[list[float]]:
        """What each token of each wrong response is multiplied with; 0 for the others."""
        cut = [
            replace(g, rows=tuple(replace(r, completion=r.completion[r.num_masked * masked :],
                                          weight=r.negative) for r in g.rows))
            for g in groups
        ]  # fmt: skip
        learned = [replace(g, rows=tuple(r for r in g.rows if r.completion)) for g in cut]
        of = Denominators.of(learned, self.reduction, self.max_tokens)
        return [[of.coefficient(r) if r.weight and r.completion else 0.0 for r in g.rows] for g in cut]

    def _margin(
        self, step: PairedStep, nll: Sequence[Floats | None], coefficients: list[Floats], add_up: AddUp
    ) -> float:
        """A pair's hinge has slope 1 in s- and -1 in s+ while it is inside the margin."""
        starts = np.cumsum([0, *(len(g.rows) for g in step.groups)])
        own = np.zeros(starts[-1])
        for batch, costs in zip(step.batches, nll, strict=True):
            for place in batch.places:
                assert costs is not None
                own[starts[place.group] + place.row] = -float(costs[place.edges].mean())
        s, slopes, value = add_up(own), np.zeros(starts[-1]), 0.0
        total = sum(r.negative for g in step.groups for r in g.rows) or 1.0
        for start, group in zip(starts, step.groups, strict=False):
            weight = np.array([r.weight for r in group.rows])
            negative = np.array([r.negative for r in group.rows])
            pairs = np.outer(weight / weight.sum(), negative) / total
            mine = s[start : start + len(weight)]
            short = np.maximum(0.0, self.margin - (mine[:, None] - mine[None, :]))
            value += float((pairs * short).sum())
            active = pairs * (short > 0)
            slopes[start : start + len(weight)] = active.sum(0) - active.sum(1)  # d value / d s
        for into, batch in zip(coefficients, step.batches, strict=True):
            for place in batch.places:
                slope = slopes[starts[place.group] + place.row]
                into[place.edges] -= self.factor * slope / len(place.edges)
        return value


def objective_of(config: StudentConfig) -> Objective:
    """The objective of a configuration whose second stage is on."""
    negatives = config.negatives
    return Objective(
        negatives.kind,
        negatives.factor,
        negatives.margin,
        second_stage(config).reduction,
        config.max_seq_tokens,
    )


def second_stage(config: StudentConfig) -> StudentConfig:
    """The settings of the optimizer in the second stage. redi is defined on mean log-probabilities."""
    negatives = config.negatives
    reduction = "seq_mean" if negatives.kind == "redi" else config.reduction
    return config.model_copy(
        update={
            "learning_rate": negatives.learning_rate,
            "epochs": negatives.epochs,
            "max_steps": 0,
            "reduction": reduction,
        }
    )


def chosen_only(groups: Sequence[Group]) -> list[Group]:
    """The groups with their right responses alone."""
    return [replace(g, rows=tuple(r for r in g.rows if r.weight)) for g in groups]


def with_extra(batch: PairedBatch, extra: Floats) -> MicroBatch:
    """A micro-batch with coefficients added to its labels."""
    tree = batch.batch.tree
    return replace(batch.batch, tree=replace(tree, coefficients=tree.coefficients + extra))
