"""Speed of verification against a math-verify loop, over cores, and at a million answers.

    python tests/bench/verify_speed.py            # all three, about five minutes
    python tests/bench/verify_speed.py --only one-core

Everything that is compared is measured in one run, alternating, best of three. Writes a
section of `results/verification.md`.
"""

import argparse
import gc
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from advdistill_core.config import RewardsConfig
from advdistill_core.rewards import Answer, Graded, Grader
from advdistill_core.rewards.files import read_batches, to_answer, write_batches

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from rows import Row, tell
from verify_results import DATA, markdown_table, store_section

_REPEATS = 3


def one_core() -> str:
    """The same answers through math-verify in a loop and through the grader, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    logging.disable(logging.CRITICAL)
    rows: list[list[object]] = []
    notes = []
    totals = [0.0] * 5
    for name in ("gsm8k_gpt3_solutions", "math_qwen25_samples"):
        lines = (DATA / f"outputs/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        data = [json.loads(line) for line in lines]
        theirs_s, ours_s, cpu_s = 1e9, 1e9, (1e9, 1e9)
        for _ in range(_REPEATS):
            theirs_cpu_s, taken_s, theirs = math_verify_loop(data)
            theirs_s = min(theirs_s, taken_s)
            ours_cpu_s, taken_s, ours = grade_fresh(data)
            ours_s = min(ours_s, taken_s)
            cpu_s = (min(cpu_s[0], theirs_cpu_s), min(cpu_s[1], ours_cpu_s))
        differ = [
            f"{row['id']} (ours {one.verdict})"
            for row, one, other in zip(data, ours, theirs, strict=True)
            if (one.verdict == "correct") != other
        ]
        rows.append([name, len(data), *_rates(len(data), theirs_s, ours_s, *cpu_s), len(differ)])
        _tell_one_core(name, len(data), theirs_s, ours_s, cpu_s, len(differ))
        measured = (theirs_s, ours_s, *cpu_s)
        totals = [total + value for total, value in zip(totals, (*measured, len(data)), strict=True)]
        if differ:
            notes.append(f"{name}: other verdicts on {', '.join(differ)}; shown right under Conformance.")
    rows.append(["both", int(totals[4]), *_rates(int(totals[4]), *totals[:4]), ""])
    head = ["answers", "rows", "math-verify loop, rows/s", "here, rows/s", "ratio"]
    head += ["ratio of processor time", "other verdicts"]
    started = "Here: a new grader each time, one worker, its start and the import of math-verify not counted."
    return "\n\n".join([markdown_table(head, rows), started, *notes])


def _tell_one_core(
    name: str, count: int, theirs_s: float, ours_s: float, cpu_s: tuple[float, float], differ: int
) -> None:
    note = f"{count} answers; {cpu_s[0] / cpu_s[1]:.1f} of processor time; {differ} other verdicts"
    if differ:
        note += " (verification.md lists them)"
    tell(
        Row(
            f"verification on one core, {name}", "math-verify loop", f"{count / ours_s:.0f}/s",
            f"{count / theirs_s:.0f}/s", theirs_s / ours_s, "10x", theirs_s / ours_s >= 10, note,
        )
    )  # fmt: skip


def _rates(
    count: int, theirs_s: float, ours_s: float, theirs_cpu_s: float, ours_cpu_s: float
) -> list[object]:
    return [
        f"{count / theirs_s:.0f}",
        f"{count / ours_s:.0f}",
        f"{theirs_s / ours_s:.1f}",
        f"{theirs_cpu_s / ours_cpu_s:.1f}",
    ]


def math_verify_loop(data: list[dict[str, Any]]) -> tuple[float, float, list[bool]]:
    """What a user writes with math-verify alone; references wrapped, as it needs them.

    Returns:
        Seconds of processor time, seconds by the clock, verdicts.
    """
    from math_verify import parse, verify

    _settle()
    cpu, clock = time.process_time(), time.perf_counter()
    verdicts = [
        bool(
            verify(
                parse(f"${row['gold']}$", parsing_timeout=None),
                parse(row["output"], parsing_timeout=None),
                timeout_seconds=None,
            )
        )
        for row in data
    ]
    return time.process_time() - cpu, time.perf_counter() - clock, verdicts


def grade_fresh(data: list[dict[str, Any]]) -> tuple[float, float, list[Graded]]:
    """A grader without memory of the answers; its clock starts when its worker stands.

    Returns:
        As `math_verify_loop`; the worker's processor time is counted too.
    """
    from advdistill_core.rewards.exact import canonical, read_number

    read_number.cache_clear()
    canonical.cache_clear()
    with Grader(RewardsConfig(num_workers=1)) as grader:
        grader.grade([Answer("math", "y+1", "\\boxed{1+y}")])
        pids = grader.pool.worker_pids
        _settle()
        cpu, clock = time.process_time() + _worker_cpu_s(pids), time.perf_counter()
        graded = grader.grade([Answer("math", row["gold"], row["output"]) for row in data])
        seconds = time.perf_counter() - clock
        return time.process_time() + _worker_cpu_s(pids) - cpu, seconds, graded


def _settle() -> None:
    """Neither side pays for collecting what the other left in this process."""
    gc.collect()
    gc.freeze()


def _worker_cpu_s(pids: list[int]) -> float:
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def cores() -> str:
    """One worker against two: answers that need algebra, and answers that need none."""
    available = sorted(os.sched_getaffinity(0))
    hard = [
        Answer("math", f"\\frac{{x+{i}}}{{3}}", f"so \\boxed{{\\frac{{x}}{{3}}+\\frac{{{i}}}{{3}}}}")
        for i in range(800)
    ]
    plain = [Answer("math", str(i + i % 2), f"so it is {i} in all.\nA: {i}") for i in range(50_000)]
    rows: list[list[object]] = []
    for name, items in (("symbolic, all different", hard), ("plain numbers, all different", plain)):
        best: dict[int, list[float]] = {}
        for _ in range(_REPEATS):
            for workers in (1, min(2, len(available))):
                best[workers] = min(best.get(workers, [1e9]), _spread(items, workers))
        (one_s, caller_one_s, workers_one_s), (two_s, caller_s, workers_s) = best[1], best[max(best)]
        extra = (caller_s + workers_s) / (caller_one_s + workers_one_s)
        rates = [f"{len(items) / one_s:.0f}", f"{len(items) / two_s:.0f}", f"{one_s / two_s:.2f}"]
        share = [f"{1e6 * caller_s / len(items):.0f}", f"{1e6 * workers_s / len(items):.0f}", f"{extra:.2f}"]
        rows.append([name, len(items), *rates, *share])
        _tell_cores(name, len(items), one_s, two_s, extra)
    head = ["answers", "rows", "1 worker, rows/s", f"{max(best)} workers, rows/s", "ratio by the clock"]
    head += ["caller, us of processor an answer", "workers, us", "processor time, 2 workers to 1"]
    load = f"{len(available)} cores, load average {os.getloadavg()[0]:.1f} at the end."
    why = (
        "Where the load is above the number of cores the ratio by the clock says nothing. Processor time "
        "does: it stays the same with more workers, and the caller's share of it is what ends the scaling."
    )
    return "\n\n".join([markdown_table(head, rows), load, why])


def _tell_cores(name: str, count: int, one_s: float, two_s: float, extra: float) -> None:
    note = f"{extra:.2f} times the processor time; load {os.getloadavg()[0]:.1f}"
    tell(
        Row(
            f"verification over cores, {name}", "itself on one core", f"{count / two_s:.0f}/s on two",
            f"{count / one_s:.0f}/s", one_s / two_s, "near-linear (1.8x on two)", one_s / two_s >= 1.8, note,
        )
    )  # fmt: skip


def _spread(items: list[Answer], workers: int) -> list[float]:
    """Seconds by the clock, and of processor time of the caller and of its workers."""
    with Grader(RewardsConfig(num_workers=workers)) as grader:
        grader.grade([Answer("math", f"y+{i}", f"\\boxed{{{i}+y}}") for i in range(8)])
        pids = grader.pool.worker_pids
        _settle()
        worker_cpu, cpu, clock = _worker_cpu_s(pids), time.process_time(), time.perf_counter()
        grader.grade(items)
        return [time.perf_counter() - clock, time.process_time() - cpu, _worker_cpu_s(pids) - worker_cpu]


def million() -> str:
    """Short numeric answers from file to file, in children, so that each has its own peak."""
    rows: list[list[object]] = []
    for count in (10_000, 100_000, 1_000_000):
        command = [sys.executable, __file__, "--only", "child", "--rows", str(count)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            [
                count,
                f"{result['seconds']:.1f}",
                f"{count / result['seconds']:.0f}",
                result["peak_mib"],
                result["workers_mib"],
            ]
        )
    return markdown_table(["rows", "seconds", "rows/s", "peak memory, MiB", "largest worker, MiB"], rows)


def million_child(count: int) -> None:
    """Grade `count` rows of a JSONL file into another, in batches."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        with open(source, "w", encoding="utf-8") as file:
            for i in range(count):
                gold = i * 7 % 1000
                file.write(f'{{"gold": "{gold}", "prediction": "{i % 97} + {gold} = {gold + i % 3}"}}\n')
        started = time.perf_counter()
        with Grader(RewardsConfig()) as grader:

            def graded() -> Any:
                for batch in read_batches(source):
                    answers = [to_answer(where, row, "math") for where, row in batch]
                    for (_, row), one in zip(batch, grader.grade(answers), strict=True):
                        row["verdict"], row["extracted"] = one
                    yield [row for _, row in batch]

            write_batches(target, graded())
        seconds = time.perf_counter() - started
    peak = [
        resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(json.dumps({"seconds": seconds, "peak_mib": peak[0], "workers_mib": peak[1]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["one-core", "cores", "million", "child"])
    parser.add_argument("--rows", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.only == "child":
        million_child(arguments.rows)
        return
    parts = {
        "million": million,
        "cores": cores,
        "one-core": one_core,
    }  # the last narrows the process to a core
    titles = {
        "one-core": "Speed on one core",
        "cores": "Speed over cores",
        "million": "A million short answers",
    }
    for name, measure in parts.items():
        if arguments.only in (None, name):
            command = f"`python tests/bench/verify_speed.py --only {name}`"
            text = measure()
            store_section(titles[name], f"{command}\n\n{text}")
            print(f"{titles[name]}\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
