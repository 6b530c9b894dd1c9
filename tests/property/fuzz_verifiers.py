"""A fuzzer over the code that reads what models write.

    python tests/property/fuzz_verifiers.py --seconds 600

mutates a corpus of answers and feeds each to every glance (in this process, where nothing
could kill it) and, in batches, to the worker pool. It fails on an exception, on a glance
that takes too long for its input, on a verdict that changes when asked again, on a pool
that is not at full size, and on growth of memory.
"""

import argparse
import faulthandler
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from advdistill_core.config import PolicyConfig, RewardsConfig
from advdistill_core.rewards import VERDICTS, Answer, Graded, Grader
from advdistill_core.rewards.judge import Judge

SEEDS = [
    ("1/2", "so \\boxed{\\frac{1}{2}}."),
    ("18", "He has 9 * 2 = $<<9*2=18>>18\nA: 18"),
    ("1,000", "The answer is 1 000."),
    ("B", "The answer is (B) or (C). The answer is B."),
    ("\\frac{3}{4}", "<think>\\boxed{7}</think>\n#### 3/4"),
    ("28\\%", "$\\boxed{28}$ percent"),
    ("(1,2]", "the interval $\\left(1, 2\\right]$ \\boxed{\\{1\\} \\cup (1,2]}"),
    ("x^2+1", "\\[ \\boxed{1 + x^{2}} \\]"),
    ("3\\frac{1}{2}", "<answer>3 1/2</answer>"),
    ('{"a": [1, 2]}', '```json\n{"a": [1, 2.0]}\n```'),
    ("-1.5e-3", "It is −0.0015 m^2, i.e. -1.5 \\times 10^{-3}\\,\\text{m}"),
    ("\\text{4:30 p.m.}", "at \\boxed{4:30\\text{ p.m.}} or \\boxed{16:30}"),
]
TOKENS = [
    *[
        "\\boxed{",
        "}",
        "{",
        "\\frac",
        "\\text{",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "####",
        "$",
        "\\(",
        "\\)",
    ],
    *[
        "answer is",
        "Answer:",
        "A:",
        "and",
        ",",
        ".",
        "-",
        "/",
        "%",
        "^",
        "_",
        "\\",
        "\n",
        " ",
        "\t",
        "9",
        "0",
        "1e9",
    ],
    *[
        "\x00",
        "\ud800",
        "\u202e",
        "٣",
        "½",
        "∞",
        "NaN",
        "\u00a0",
        "(B)",
        "or",
        "=",
        "!",
        "\\pm",
        "[",
        "]",
        '"',
        "```json\n",
    ],
]
TASKS = ("math", "choice", "exact", "numeric", "regex", "json", "reasoning_gym", "python")
CHOICES = ("1/2", "The second option.", "3", "none of these")
_BASE_S, _S_PER_CHAR = 0.25, 4e-6  # a glance may take this long; the machine is shared
_MAX_CHARS = 200_000
_LEAK_BYTES = 80 << 20


def mutate(rng: random.Random, text: str) -> str:
    """One of several small or large damages."""
    for _ in range(rng.randint(1, 4)):
        cut = rng.randint(0, len(text))
        end = min(len(text), cut + rng.choice([0, 1, 3, 20]))
        kind = rng.random()
        if kind < 0.55:
            text = text[:cut] + rng.choice(TOKENS) + text[end:]
        elif kind < 0.7:
            text = text[:cut] + text[end:]
        elif kind < 0.85:
            text = text[:cut] + text[cut : cut + 30] * rng.randint(2, 12) + text[cut:]
        elif kind < 0.95:
            text = text[:cut] + rng.choice(SEEDS)[1] + text[end:]
        elif len(text) < 5_000:
            text = text[:cut] + rng.choice(TOKENS) * rng.choice([100, 5_000, 30_000]) + text[end:]
    return text[:_MAX_CHARS]


def check_glance(judge: Judge, answer: Answer) -> None:
    """The invariants of one glance.

    Raises:
        AssertionError: one of them does not hold.
    """
    started = time.thread_time()
    seen = judge.glance(answer)
    taken_s = time.thread_time() - started
    assert taken_s < _BASE_S + _S_PER_CHAR * len(answer.text), f"{answer.task}: {taken_s:.2f} s"
    assert seen == judge.glance(answer), f"{answer.task}: another verdict the second time"
    if isinstance(seen, Graded):
        assert seen.verdict in VERDICTS
        assert seen.extracted is None or isinstance(seen.extracted, str)
    judge.verifier(answer.task).glance_reference(answer)


def fuzz(seconds: float, seed: int, seeds: list[tuple[str, str]], pool_every: int = 2_000) -> dict[str, int]:
    """Run for a time.

    Returns:
        How many answers were glanced at and judged, and the verdicts of the pool.
    """
    rng = random.Random(seed)
    judge = Judge(PolicyConfig())
    counts: Counter[str] = Counter()
    config = RewardsConfig(timeout_s=1.0, num_workers=1, max_error_frac=1.0)
    corpus = list(seeds)
    stop = time.monotonic() + seconds
    warm_bytes = 0
    with Grader(config) as grader:
        batch: list[Answer] = []
        while time.monotonic() < stop:
            reference, text = rng.choice(corpus)
            text = mutate(rng, text)
            reference = mutate(rng, reference)[:300] if rng.random() < 0.2 else reference
            faulthandler.dump_traceback_later(30, exit=True)  # a glance that hangs
            for task in TASKS:
                answer = Answer(task, reference, text, rng.random() < 0.05, CHOICES, "reasoning_gym/gcd")
                check_glance(judge, answer)
                counts["glanced"] += 1
            faulthandler.cancel_dump_traceback_later()
            if len(text) < 2_000 and len(corpus) < 5_000:
                corpus.append((reference, text))
            if rng.random() < 0.02 and len(text) < 20_000:
                batch.append(Answer("math", reference, text))
            if counts["glanced"] % (pool_every * len(TASKS)) == 0 and batch:
                check_pool(grader, batch, counts)
                batch = []
                warm_bytes = warm_bytes or _resident_bytes()
    grown = _resident_bytes() - (warm_bytes or _resident_bytes())
    assert grown < _LEAK_BYTES, f"memory grew by {grown >> 20} MiB"
    counts["grown_mib"] = grown >> 20
    return dict(counts)


def check_pool(grader: Grader, batch: list[Answer], counts: Counter[str]) -> None:
    """Every answer of a batch gets a verdict in bounded time; the pool stays at full size."""
    started = time.monotonic()
    for graded in grader.grade(batch):
        assert graded.verdict in VERDICTS
        counts[graded.verdict] += 1
    limit_s = 10 + len(batch) * (grader.config.timeout_s + 0.5)
    assert time.monotonic() - started < limit_s, "the pool took longer than its limits allow"
    assert len(grader.pool.worker_pids) in (0, grader.pool.num_workers)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def corpus_from(folder: Path) -> list[tuple[str, str]]:
    """Real references and answers, where the sample data is there."""
    rows: list[tuple[str, str]] = []
    for name in ("verifier/pairs_math_verify.jsonl", "verifier/hostile_inputs.jsonl"):
        if (folder / name).exists():
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            rows += [(row["gold"], row["prediction"]) for row in map(json.loads, lines)]
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--corpus", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data"
    )
    arguments = parser.parse_args()
    found = fuzz(arguments.seconds, arguments.seed, SEEDS + corpus_from(arguments.corpus))
    json.dump({"seconds": arguments.seconds, "seed": arguments.seed, **found}, sys.stdout)
    print()
