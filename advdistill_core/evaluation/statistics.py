"""Accuracies and differences with honest intervals. Pure numpy.

The unit is the question (or a cluster of questions that share a template): several samples
or seeds of one question are averaged first, because they are not independent. An answer
that could not be graded is NaN and counts neither way.

Which interval, and why:
- A single accuracy: Wilson's score interval with an effective number of questions,
  n_eff = p(1-p)/SE^2. For one answer a question that is plain Wilson; for nested samples and
  clusters it carries the design effect over (as in Korn and Graubard 1998). The CLT interval
  p +- z SE has width 0 at 0 or all correct and covers badly near the edges; Wilson does not.
- A paired difference: the CLT interval after adding one pseudo-question of difference +1
  and one of -1 (Agresti and Min 2005: half a count in each cell of the 2x2 table). Without
  them two models that agree on every question would get an interval of width 0; with them it
  covers a little more than its level when very few questions differ. The p-value comes from
  the same centre and error, so it is below 1 - confidence exactly when the interval leaves
  0 out.

Not here: Student quantiles. Under some 20 clusters the intervals are a little too narrow.
The intervals are over questions; how much another training seed would change the model is
a spread of its own, to be reported beside them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A share with its uncertainty, all in 0 to 1.

    Args:
        value: the mean over questions; NaN when there is none.
        se: CLT standard error over questions or clusters (0 when all are equal).
        low, high: the interval.
        num_questions: questions with at least one gradable answer.
        num_left_out: questions without one.
    """

    value: float
    se: float
    low: float
    high: float
    num_questions: int
    num_left_out: int


@dataclass(frozen=True)
class Difference:
    """A paired difference, second minus first, in -1 to 1.

    Args:
        value: the mean over questions of the difference; NaN when there is none.
        se: its CLT standard error.
        low, high: the interval.
        p_value: two-sided, of no difference.
        num_questions: questions graded in both.
        num_left_out: questions that lack a gradable answer in one of them.
        gained, lost: questions where the second is better or worse.
    """

    value: float
    se: float
    low: float
    high: float
    p_value: float
    num_questions: int
    num_left_out: int
    gained: int
    lost: int


def accuracy(answers: ArrayLike, clusters: Sequence[Any] | None = None, confidence: float = 0.95) -> Estimate:
    """Accuracy of one model.

    Args:
        answers: (Q,) or (Q, S) in 0 to 1, NaN where ungradable; S samples of each question.
        clusters: (Q,) labels of questions that share a template; each its own without.
        confidence: level of the interval.
    """
    x_QS = _two_dimensional(answers)
    x_Q, kept = _question_means(x_QS)
    if not x_Q.size:
        return Estimate(math.nan, math.nan, 0.0, 1.0, 0, len(kept))
    p, n = float(x_Q.mean()), x_Q.size
    totals = _cluster_totals(x_Q - p, _labels(clusters, kept))
    se = math.sqrt(_variance_of_mean(totals, n))
    # At an edge, or when by chance every question has the same mean, the data show no
    # spread; the number of clusters (or of answers) is then the most that can be claimed.
    if p in (0.0, 1.0):
        n_eff = float(len(totals))
    else:
        most = float(np.isfinite(x_QS).sum())
        n_eff = min(most, p * (1 - p) / se**2) if se else most
    low, high = wilson(p, n_eff, confidence)
    return Estimate(p, se, low, high, n, len(kept) - n)


def wilson(p: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share `p` seen in `n` trials."""
    z2 = _z(confidence) ** 2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence[Any] | None = None,
    confidence: float = 0.95,
) -> Difference:
    """Second minus first on the same questions, in the same order.

    Args:
        first, second: (Q,) or (Q, S) in 0 to 1, NaN where ungradable; the numbers of samples
            or seeds S may differ, and a question is left out when one has none.
        clusters: as in `accuracy`.
        confidence: level of the interval.

    Raises:
        ValueError: the two do not have the same questions.
    """
    a_QS, b_QS = _two_dimensional(first), _two_dimensional(second)
    if len(a_QS) != len(b_QS):
        raise ValueError(f"paired answers: got {len(a_QS)} and {len(b_QS)} questions, expected as many.")
    d_Q, kept = _question_means(
        np.stack([_nan_mean(b_QS) - _nan_mean(a_QS)], axis=1) if len(a_QS) else np.empty((0, 1))
    )
    if not d_Q.size:
        return Difference(math.nan, math.nan, -1.0, 1.0, 1.0, 0, len(kept), 0, 0)
    mean, n = float(d_Q.mean()), d_Q.size
    se = math.sqrt(_variance_of_mean(_cluster_totals(d_Q - mean, _labels(clusters, kept)), n))
    centre = mean * n / (n + 2)
    # Agresti and Min's 1/2 in each cell adds 1/2 + 1/2 to the sum of squared differences.
    spread = math.sqrt((se * n) ** 2 + 1) / (n + 2)
    z = _z(confidence)
    return Difference(
        value=mean,
        se=se,
        low=max(-1.0, centre - z * spread),
        high=min(1.0, centre + z * spread),
        p_value=2 * (1 - NormalDist().cdf(abs(centre) / spread)),
        num_questions=n,
        num_left_out=len(kept) - n,
        gained=int((d_Q > 0).sum()),
        lost=int((d_Q < 0).sum()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): reject those below alpha, and all together err with at most alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is correct (Chen et al. 2021, eq. 1).

    Args:
        num_samples: samples drawn of the question, n.
        num_correct: correct ones among them, c.
        k: at most n.

    Raises:
        ValueError: fewer than k samples; no unbiased estimate exists.
    """
    if not 0 <= num_correct <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(f"pass@k: got n {num_samples}, c {num_correct}, k {k}, expected 1 <= k <= n.")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def pass_at_1(num_samples: int, num_correct: int) -> float:
    """Share of correct samples: unbiased whatever n is, unlike the first sample's or the best's."""
    return pass_at_k(num_samples, num_correct, 1)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Chance that the most frequent of k answers is correct, over disjoint blocks of k samples.

    A tie counts the share of the tied answers that are correct, so that neither order nor chance
    plays a role. None does not vote; a block without votes is wrong. Correct answers are one
    candidate however they are written, since each equals the reference; wrong ones are told
    apart by their text.

    Args:
        answers: (n,) extracted answers; at least k. What does not fill a block is left out.
        correct: (n,) the verdicts.
        k: votes of a block.

    Raises:
        ValueError: fewer than k answers.
    """
    if not 1 <= k <= len(answers) or len(answers) != len(correct):
        raise ValueError(
            f"maj@k: got {len(answers)} answers and {len(correct)} verdicts, expected k = {k} or more."
        )
    shares = []
    for start in range(0, len(answers) - k + 1, k):
        votes: dict[str | bool, int] = {}
        for answer, right in zip(answers[start : start + k], correct[start : start + k], strict=True):
            if right or answer is not None:
                key: str | bool = True if right else str(answer)
                votes[key] = votes.get(key, 0) + 1
        most = max(votes.values(), default=0)
        winners = [key for key, count in votes.items() if count == most]
        shares.append(winners.count(True) / len(winners) if winners else 0.0)
    return float(np.mean(shares))


def _two_dimensional(answers: ArrayLike) -> Floats:
    x = np.asarray(answers, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise ValueError(f"answers: got shape {x.shape}, expected (questions,) or (questions, samples).")
    return x


def _nan_mean(x_QS: Floats) -> Floats:
    """(Q,) mean of each question's gradable answers, NaN where it has none."""
    num_Q = np.isfinite(x_QS).sum(axis=1)
    total_Q = np.where(np.isfinite(x_QS), x_QS, 0.0).sum(axis=1)
    mean_Q: Floats = np.divide(total_Q, num_Q, out=np.full(len(x_QS), np.nan), where=num_Q > 0)
    return mean_Q


def _question_means(x_QS: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The finite means, and which of the questions they belong to."""
    x_Q = _nan_mean(x_QS)
    kept = np.isfinite(x_Q)
    return x_Q[kept], kept


def _labels(clusters: Sequence[Any] | None, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) cluster numbers of the kept questions."""
    if clusters is None:
        return np.arange(int(kept.sum()))
    if len(clusters) != len(kept):
        raise ValueError(
            f"clusters: got {len(clusters)} labels, expected one for each of {len(kept)} questions."
        )
    numbers: dict[Any, int] = {}
    all_labels = np.array([numbers.setdefault(c, len(numbers)) for c in clusters], dtype=np.int64)[kept]
    return np.unique(all_labels, return_inverse=True)[1]


def _cluster_totals(deviations: Floats, labels: NDArray[np.int64]) -> Floats:
    """(C,) sum of the deviations in each cluster."""
    totals = np.zeros(labels.max() + 1)
    np.add.at(totals, labels, deviations)
    return totals


def _variance_of_mean(totals: Floats, n: int) -> float:
    """Sandwich variance of a mean of n questions from its clusters' total deviations.

    With every question its own cluster this is the sample variance over n.
    """
    num_clusters = len(totals)
    if num_clusters < 2:
        return 0.0
    return float((totals**2).sum() * num_clusters / (num_clusters - 1) / n**2)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
