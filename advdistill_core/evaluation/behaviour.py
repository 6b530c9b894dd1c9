"""How responses look, beside whether they are right. Pure functions over text and counts.

Patterns are English and arithmetic: they describe the shape of a reasoning text, they do not
grade it. A figure that has nothing to be computed from is None, never 0.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from advdistill_core.rewards.equations import equation_checks
from advdistill_core.rewards.parts import count_steps, repetition

_WORD = re.compile(r"\w+")
_REFLECTION = re.compile(
    r"\b(?:wait|hmm|actually|alternatively|however|let me (?:check|verify|re-?check|think|see)|"
    r"double[- ]check|on second thought|i made (?:a|an) (?:mistake|error)|re-?check)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Response:
    """What the metrics look at.

    Args:
        group: the prompt it answers.
        verdict: correct, wrong, unparsed, timeout or error.
        extracted: its final answer, if one was found.
        truncated: whether it was cut at the token limit.
    """

    group: str
    text: str
    num_tokens: int
    verdict: str
    extracted: str | None
    truncated: bool


Figures = dict[str, float | None]


def describe(responses: Sequence[Response], max_distinct: int = 1000) -> Figures:
    """The figures of a set of responses; shares are 0 to 1, lengths in tokens.

    Args:
        max_distinct: distinct-n falls with the number of texts, so that it is taken over so
            many evenly spaced ones; sets of other sizes can then be compared.
    """
    some = [r.text for r in responses[:: max(1, math.ceil(len(responses) / max_distinct))]]
    lengths = [r.num_tokens for r in responses]
    right = [r.num_tokens for r in responses if r.verdict == "correct"]
    wrong = [r.num_tokens for r in responses if r.verdict in ("wrong", "unparsed")]
    equations = [e for r in responses for e in equation_checks(r.text)]
    return {
        "num_responses": float(len(responses)),
        "tokens_mean": _mean(lengths),
        "tokens_median": float(median(lengths)) if lengths else None,
        "tokens_p95": percentile(lengths, 0.95),
        "tokens_mean_correct": _mean(right),
        "tokens_mean_wrong": _mean(wrong),
        "truncated_frac": _mean([r.truncated for r in responses]),
        "unparsed_frac": _mean([r.verdict == "unparsed" for r in responses]),
        "steps_mean": _mean([count_steps(r.text) for r in responses]),
        "equations_per_response": len(equations) / len(responses) if responses else None,
        "equations_valid_frac": _mean([holds for _, holds in equations]),
        "reflections_per_1k_tokens": _ratio(
            sum(map(count_reflections, (r.text for r in responses))), sum(lengths), 1000
        ),
        "repetition_frac": _mean([repetition(r.text) for r in responses]),
        "distinct_1": distinct_n(some, 1),
        "distinct_2": distinct_n(some, 2),
        "distinct_3": distinct_n(some, 3),
    }


def describe_groups(groups: Sequence[Sequence[Response]], max_bleu_groups: int = 100) -> Figures:
    """How much the k responses of a prompt differ, averaged over prompts.

    Args:
        groups: the responses of each prompt.
        max_bleu_groups: self-BLEU is quadratic in k; evenly spaced groups stand for the rest.
    """
    groups = [g for g in groups if g]
    every = max(1, math.ceil(len(groups) / max_bleu_groups))
    blues = [b for g in groups[::every] if (b := self_bleu([r.text for r in g])) is not None]
    calibration = majority_calibration(groups)
    return {
        "num_prompts": float(len(groups)),
        "self_bleu_4": _mean(blues),
        "distinct_texts": _mean([len({r.text for r in g}) for g in groups]),
        "distinct_equation_lists": _mean(
            [len({tuple(text for text, _ in equation_checks(r.text)) for r in g}) for g in groups]
        ),
        "distinct_answers": _mean([len({r.extracted for r in g} - {None}) for g in groups]),
        "answer_entropy_bits": _mean([answer_entropy([r.extracted for r in g]) for g in groups]),
        "majority_ece": calibration[0],
        "majority_brier": calibration[1],
    }


def count_reflections(text: str) -> int:
    """Words of doubt and checking: wait, actually, let me check, ..."""
    return len(_REFLECTION.findall(text))


def distinct_n(texts: Iterable[str], n: int) -> float | None:
    """Distinct word n-grams over all of them (Li et al. 2016), in 0 to 1."""
    total, seen = 0, set()
    for text in texts:
        tokens = _WORD.findall(text.lower())
        grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
        total += len(grams)
        seen.update(grams)
    return len(seen) / total if total else None


def self_bleu(texts: Sequence[str], n: int = 4) -> float | None:
    """Mean BLEU-n of each text against the others (Zhu et al. 2018); 1 for k equal texts.

    Counts of orders above 1 are smoothed by adding one (Lin and Och 2004), so that short
    texts do not all get 0.
    """
    if len(texts) < 2:
        return None
    tokens = [_WORD.findall(t.lower()) for t in texts]
    grams = [[_ngrams(t, order) for order in range(1, n + 1)] for t in tokens]
    return fmean(
        _bleu(
            grams[i],
            len(tokens[i]),
            grams[:i] + grams[i + 1 :],
            [len(t) for t in tokens[:i] + tokens[i + 1 :]],
        )
        for i in range(len(texts))
    )


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _bleu(
    candidate: Sequence[Counter[tuple[str, ...]]],
    length: int,
    references: Sequence[Sequence[Counter[tuple[str, ...]]]],
    reference_lengths: Sequence[int],
) -> float:
    if not length:
        return float(0 in reference_lengths)
    log_precision = 0.0
    for order, counts in enumerate(candidate):
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= reference[order]
        matched, total = sum((counts & most).values()), sum(counts.values())
        smoothed = int(order > 0)
        if not matched + smoothed:
            return 0.0
        log_precision += math.log((matched + smoothed) / (total + smoothed)) / len(candidate)
    closest = min(reference_lengths, key=lambda r: (abs(r - length), r))
    return math.exp(log_precision + min(0.0, 1 - closest / length))


def answer_entropy(answers: Sequence[str | None]) -> float:
    """Entropy in bits of a group's answers; no answer counts as one answer of its own."""
    shares = [count / len(answers) for count in Counter(answers).values()]
    return abs(-sum(p * math.log2(p) for p in shares))


def majority_calibration(
    groups: Sequence[Sequence[Response]], num_bins: int = 10
) -> tuple[float | None, float | None]:
    """Whether the share of the most frequent answer predicts that it is right.

    Returns:
        Expected calibration error over equal-width bins, and Brier score; both 0 to 1.
        Groups without any extracted answer are left out.
    """
    pairs: list[tuple[float, bool]] = []
    for group in groups:
        votes = Counter(r.extracted for r in group if r.extracted is not None)
        if not votes:
            continue
        # Ties go to the smallest text, so that order plays no role.
        answer = min(votes, key=lambda a: (-votes[a], a))
        correct = any(r.verdict == "correct" for r in group if r.extracted == answer)
        pairs.append((votes[answer] / len(group), correct))
    if not pairs:
        return None, None
    bins: dict[int, list[tuple[float, bool]]] = {}
    for share, correct in pairs:
        bins.setdefault(min(num_bins - 1, int(share * num_bins)), []).append((share, correct))
    gaps = (abs(sum(s for s, _ in b) - sum(c for _, c in b)) for b in bins.values())
    return sum(gaps) / len(pairs), fmean((share - correct) ** 2 for share, correct in pairs)


def accuracy_by_difficulty(
    pass_rates: Sequence[float], accuracies: Sequence[float], num_bins: int = 10
) -> list[tuple[float, float, int]]:
    """Accuracy in equally large bins of difficulty, the hardest first.

    Args:
        pass_rates: (Q,) the teacher's share of correct samples of each question.
        accuracies: (Q,) of the model looked at.

    Returns:
        Mean pass rate, mean accuracy and number of questions of each bin that is not empty.
    """
    order = sorted(range(len(pass_rates)), key=lambda q: pass_rates[q])
    edges = [round(i * len(order) / num_bins) for i in range(num_bins + 1)]
    bins = (order[low:high] for low, high in pairwise(edges))
    return [(fmean(pass_rates[q] for q in b), fmean(accuracies[q] for q in b), len(b)) for b in bins if b]


def likelihood_gap(mean_logprobs: Sequence[float], correct: Sequence[bool]) -> Figures:
    """A student's mean log-probability per token (nats) of correct and of wrong responses."""
    right = _mean([s for s, c in zip(mean_logprobs, correct, strict=True) if c])
    wrong = _mean([s for s, c in zip(mean_logprobs, correct, strict=True) if not c])
    gap = None if right is None or wrong is None else right - wrong
    return {"logprob_correct": right, "logprob_wrong": wrong, "logprob_gap": gap}


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) if ordered else None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _ratio(count: float, total: float, scale: float) -> float | None:
    return scale * count / total if total else None
