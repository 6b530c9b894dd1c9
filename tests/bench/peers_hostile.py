"""Answers that hang a symbolic parser: math-verify in the main thread and in a thread, and here.

    python tests/bench/peers_hostile.py DATA_FOLDER [--limit-s 15]

The answers are `verifier/hostile_inputs.jsonl` and some power towers and nestings. math-verify's
own time limits (5 s to parse, 5 s to compare) need the main thread; in another thread they have
to be switched off, and an answer that then takes longer than `--limit-s` is counted as unbounded
and its process killed. Ours is called from a thread, with a limit of 5 s an answer.
"""

import argparse
import json
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from rows import Row, tell

_TIMEOUT_S, _WORKERS = 5.0, 2
_OURS_S = 2.0  # the end of a worker and the start of the next, on a busy machine
_OWN = [
    "\\boxed{9^{9^{9}}}", "\\boxed{9^{9^{9^{9}}}}", "\\boxed{2^{3^{4^{5^{6}}}}}", "\\boxed{((10^{10})!)!}",
    "\\boxed{" + "(" * 2000 + "1" + ")" * 2000 + "}", "\\boxed{7^{7^{7^{7}}} - 7^{7^{7^{7}}}}",
]  # fmt: skip


def cases(data: Path) -> list[tuple[str, str]]:
    """References and answers."""
    lines = (data / "verifier/hostile_inputs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [*((row["gold"], row["prediction"]) for row in rows), *(("7919", text) for text in _OWN)]


def child(data: Path, where: str, first: int) -> None:
    """Judge the cases with math-verify from the one given on; a line when each has ended."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)

    def judge() -> None:
        limits = {} if where == "main" else {"parsing_timeout": None}
        limit = {} if where == "main" else {"timeout_seconds": None}
        print("ready", flush=True)
        for gold, text in cases(data)[first:]:
            try:
                verify(parse(f"${gold}$", **limits), parse(text, **limits), **limit)
            except Exception as error:  # noqa: BLE001 - which one is no part of the figure
                print(type(error).__name__, flush=True)
            else:
                print("ended", flush=True)

    if where == "main":
        judge()
        return
    thread = threading.Thread(target=judge)
    thread.start()
    thread.join()


def theirs(data: Path, where: str, limit_s: float) -> list[float]:
    """Seconds of each case; infinite where it was killed at the limit."""
    taken: list[float] = []
    while len(taken) < len(cases(data)):
        command = [sys.executable, __file__, str(data), "--child", where, str(len(taken))]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while len(taken) < len(cases(data)):
                began = time.monotonic()
                if not select.select([process.stdout], [], [], limit_s)[0]:
                    taken.append(float("inf"))
                    process.kill()
                    break
                if not process.stdout.readline():
                    raise SystemExit(f"math-verify's process ended by itself on answer {len(taken)}")
                taken.append(time.monotonic() - began)
    return taken


def ours(data: Path) -> tuple[list[tuple[str, float]], int]:
    """Verdict and seconds of each case, and the workers that stand afterwards."""
    from advdistill_core.config import RewardsConfig
    from advdistill_core.rewards import Answer, Grader

    found = []

    def judge(grader: Grader) -> None:
        for gold, text in cases(data):
            began = time.monotonic()
            (graded,) = grader.grade([Answer("math", gold, text)])
            found.append((graded.verdict, time.monotonic() - began))

    with Grader(RewardsConfig(num_workers=_WORKERS, timeout_s=_TIMEOUT_S)) as grader:
        grader.grade([Answer("math", "y+1", "\\boxed{1+y}")])  # its workers stand
        thread = threading.Thread(target=judge, args=(grader,))
        thread.start()
        thread.join()
        after = grader.grade([Answer("math", f"y+{i}", f"\\boxed{{{i}+y}}") for i in range(2, 34)])
        assert {one.verdict for one in after} == {"correct"}, after  # and every worker was wanted
        return found, len(grader.pool.worker_pids)


def main() -> None:
    if "--child" in sys.argv:
        child(Path(sys.argv[1]), sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit-s", type=float, default=15.0)
    given = parser.parse_args()
    found, workers = ours(given.data)
    most = max(seconds for _, seconds in found)
    verdicts = Counter(verdict for verdict, _ in found)
    said = f"{len(found)} answers: at most {most:.1f} s; " + ", ".join(
        f"{count} {verdict}" for verdict, count in sorted(verdicts.items())
    )
    said += f"; {workers} of {_WORKERS} workers afterwards"
    met = most <= _TIMEOUT_S + _OURS_S and workers == _WORKERS
    met &= all(verdict == "timeout" for verdict, seconds in found if seconds >= _TIMEOUT_S)
    for where, name in (("main", "math-verify, main thread"), ("thread", "math-verify, in a thread")):
        limit_s = given.limit_s if where == "thread" else 60.0
        taken = theirs(given.data, where, limit_s)
        endless = sum(seconds == float("inf") for seconds in taken)
        longest = max((seconds for seconds in taken if seconds != float("inf")), default=0.0)
        text = f"at most {longest:.1f} s; {sum(4 < s < float('inf') for s in taken)} over 4 s"
        if endless:
            text += f"; {endless} without end (killed at {limit_s:.0f} s)"
        goal = "every one bounded, the pool at full size, verdict timeout"
        tell(Row("hostile answers", name, said, text, None, goal, met))


if __name__ == "__main__":
    main()
