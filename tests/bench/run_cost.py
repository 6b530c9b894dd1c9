"""What a run costs: time and peak memory, fresh and cached, against Prefect's own start.

    python tests/bench/run_cost.py quickstart [--root DIR] [--set section.field=value ...]

Prints one JSON object. Memory is the largest sum of the resident sets of the process tree
and of the Prefect server, sampled four times a second; shared pages count once per process,
so it errs on the high side.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

_EMPTY_FLOW = """
import os, time
began = time.monotonic()
from flows.server import connect
server = connect()
from prefect import flow
server and server.wait()
@flow
def empty() -> None: ...
empty()
print(time.monotonic() - began)
"""


def resident_bytes(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def measured(arguments: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], float, int]:
    """Run a command; returns its JSON line, its seconds and its peak memory in bytes."""
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(arguments, stdout=out, env=environment)
        process = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, resident_bytes(process) + server_bytes(environment))
            time.sleep(0.25)
        seconds = time.monotonic() - began
        out.seek(0)
        lines = out.read().strip().splitlines()
    if child.returncode:
        sys.exit(f"{arguments} ended with {child.returncode}")
    return json.loads(lines[-1]), seconds, peak


def server_bytes(environment: dict[str, str]) -> int:
    try:
        record = json.loads((Path(environment["ADVDISTILL_HOME"]) / "server.json").read_text())
        return resident_bytes(psutil.Process(record["pid"]))
    except (OSError, ValueError, psutil.NoSuchProcess):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = given.root or Path(folder) / "store"
        environment = {**os.environ}
        environment.setdefault("ADVDISTILL_HOME", f"{folder}/home")
        command = [sys.executable, "-m", "flows.cli", "run", given.recipe, "--root", str(root), "--json"]
        for override in given.overrides:
            command += ["--set", override]
        try:
            fresh, fresh_s, fresh_peak = measured(command, environment)
            empty = subprocess.run(
                [sys.executable, "-c", _EMPTY_FLOW],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            again, again_s, again_peak = measured(command, environment)
        finally:
            if "ADVDISTILL_HOME" not in os.environ:
                subprocess.run([sys.executable, "-m", "flows.cli", "down"], env=environment, check=False)
    report = {
        "fresh_s": round(fresh_s, 1),
        "fresh_peak_gb": round(fresh_peak / 1e9, 2),
        "stages_s": {label: stage["seconds"] for label, stage in fresh["stages"].items()},
        "cached_s": round(again_s, 1),
        "cached_peak_gb": round(again_peak / 1e9, 2),
        "cached_outcomes": sorted({stage["outcome"] for stage in again["stages"].values()}),
        "empty_flow_s": round(float(empty.stdout.strip().splitlines()[-1]), 1),
        "metrics": fresh["metrics"],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
