"""Verify, weigh and write, from ten thousand to a million responses: streamed, and with pandas.

    python tests/bench/peers_scale.py [--rows 10000,100000,1000000]

Short numeric answers in groups of eight. Ours are the stages `verify` and `weigh` from artifact
to artifact; theirs reads the same Parquet files into data frames, grades them with the same
grader in one call, weighs with `groupby`, and writes two files. Each size is a process of its
own; peak memory is that of the process, its workers apart (they are the same in both).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rows import Row, tell

K = 8
_SLACK = 1.25  # of time a response, and of memory, from the smallest size to the largest


def texts(i: int) -> tuple[str, str]:
    """A reference and an answer that is right once in three."""
    gold = i // K * 7 % 1000
    return str(gold), f"{i % 97} + {gold} = {gold + i % 3}"


def make(store: Any, rows: int) -> tuple[Any, Any]:
    """The artifacts `prompts` and `responses`, in parts as a run leaves them."""
    from advdistill_core.store import tables

    step = 10_000

    def prompts() -> Iterator[Any]:
        for start in range(0, rows // K, step):
            made = [
                {
                    "prompt_id": f"{p:08d}", "task": "math", "reference_answer": texts(p * K)[0],
                    "choices": [], "messages": [{"role": "user", "content": "?"}], "split": "train",
                    "source": "bench",
                }
                for p in range(start, min(rows // K, start + step))
            ]  # fmt: skip
            yield tables.from_rows(made, tables.PROMPTS)

    def responses() -> Iterator[Any]:
        for start in range(0, rows, step):
            made = [
                {
                    "prompt_id": f"{i // K:08d}", "sample_id": i % K, "text": texts(i)[1], "num_tokens": 8,
                    "finish_reason": "stop", "teacher": "t", "seed": 0, "request_hash": "",
                }
                for i in range(start, min(rows, start + step))
            ]  # fmt: skip
            yield tables.from_rows(made, tables.RESPONSES)

    found = []
    for name, table, parts, prefix in (
        ("load", "prompts", prompts(), "train"), ("generate", "responses", responses(), "part"),
    ):  # fmt: skip
        out = store.begin(name, "1", "0" * 32, table)
        out.write_tables(parts, prefix)
        found.append(out.commit({}, {}))
    return found[0], found[1]


def ours(root: str) -> None:
    from advdistill_core.config import DistillConfig
    from advdistill_core.stages import VERIFY, WEIGH, run_stage
    from advdistill_core.store import Store

    store = Store(root)
    loaded, generated = (store.find(name, "0" * 32) for name in ("load", "generate"))
    assert loaded is not None
    assert generated is not None
    config = DistillConfig()
    rewards = run_stage(VERIFY, config, {"prompts": loaded, "responses": generated}, store)
    run_stage(WEIGH, config, {"responses": generated, "rewards": rewards}, store)


def pandas(root: str) -> None:
    import numpy as np
    import pandas as pd

    from advdistill_core.config import RewardsConfig
    from advdistill_core.rewards import Answer, Grader

    def read(name: str) -> Any:
        parts = sorted(Path(root).glob(f"{name}/*/*.parquet"))
        return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)

    prompts = read("load")[["prompt_id", "reference_answer"]]
    frame = read("generate").merge(prompts, on="prompt_id")
    with Grader(RewardsConfig()) as grader:
        pairs = zip(frame["reference_answer"], frame["text"], strict=True)
        graded = grader.grade([Answer("math", gold, text) for gold, text in pairs])
    frame["verdict"] = [one.verdict for one in graded]
    frame["extracted"] = [one.extracted for one in graded]
    frame["reward"] = (frame["verdict"] == "correct").astype(float)
    groups = frame.groupby("prompt_id")["reward"]
    spread = groups.transform("std").clip(lower=0.3) + 1e-4
    frame["advantage"] = (frame["reward"] - groups.transform("mean")) / spread
    frame["weight"] = np.exp(frame["advantage"] / 0.5)
    frame["weight"] /= frame.groupby("prompt_id")["weight"].transform("sum")
    frame[["prompt_id", "sample_id", "verdict", "extracted", "reward"]].to_parquet(f"{root}/rewards.parquet")
    frame[["prompt_id", "sample_id", "advantage", "weight"]].to_parquet(f"{root}/weights.parquet")


def measured(which: str, root: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", which, root], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(which: str, root: str) -> None:
    began = time.monotonic()
    {"ours": ours, "pandas": pandas}[which](root)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.monotonic() - began, "peak_mib": peak_mib}))


def say(found: dict[int, dict[str, float]]) -> str:
    lines = [f"{rows:,}: {one['seconds']:.0f} s, {one['peak_mib']:.0f} MiB" for rows, one in found.items()]
    return "; ".join(lines)


def main() -> None:
    if "--child" in sys.argv:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="10000,100000,1000000")
    sizes = [int(rows) for rows in parser.parse_args().rows.split(",")]
    found: dict[str, dict[int, dict[str, float]]] = {"ours": {}, "pandas": {}}
    for rows in sizes:
        with tempfile.TemporaryDirectory() as root:
            from advdistill_core.store import Store

            make(Store(root), rows)
            for which, results in found.items():
                results[rows] = measured(which, root)
                print(rows, which, results[rows], flush=True)
    first, last = (found["ours"][rows] for rows in (sizes[0], sizes[-1]))
    slower = last["seconds"] / sizes[-1] / (first["seconds"] / sizes[0])
    grown = last["peak_mib"] / first["peak_mib"]
    theirs_first, theirs = (found["pandas"][rows] for rows in (sizes[0], sizes[-1]))
    note = (
        f"from {sizes[0]:,} to {sizes[-1]:,}: {slower:.2f} times the time a response, {grown:.2f} times the "
        f"memory, pandas {theirs['peak_mib'] / theirs_first['peak_mib']:.2f} times; "
        "the ratio is of peak memory at the largest"
    )
    goal = f"time linear, peak memory flat (both within {_SLACK:g})"
    ratio = theirs["peak_mib"] / last["peak_mib"]
    met = slower <= _SLACK and grown <= _SLACK
    tell(
        Row("verify + weigh + write", "pandas in memory", say(found["ours"]), say(found["pandas"]),
            ratio, goal, met, note)
    )  # fmt: skip


if __name__ == "__main__":
    main()
