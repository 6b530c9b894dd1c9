"""Every figure beside its peer, measured in one call: `python -m tests.bench`.

    python -m tests.bench [--only NAME ...] [--quick] [--data DIR] [--peers DIR]

Runs the scripts of this folder, each as a process, prints what they tell as one table, and puts
it into `results/README.md`, where rows of earlier calls stay with their own date. The peers
are in environments of their own (`make bench` makes them). DIR of --data holds `eval/` and
`outputs/` with real questions and model outputs, which are not part of this repository. Ends with
1 when a script failed or its environment is missing; a figure that falls short is not a failure.
"""

import argparse
import dataclasses
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.rows import HEAD, QUICK, Row, keep, told

HERE = Path(__file__).parent
RESULTS = HERE / "results"


class Bench(NamedTuple):
    """A script and its arguments; words in braces are filled in.

    Args:
        quick: what is added for a short run.
        python: which interpreter runs it: ours, or that of `trl` or `vllm`.
    """

    name: str
    script: str
    arguments: Sequence[str] = ()
    quick: Sequence[str] = ()
    python: str = "ours"


BENCHES = (
    Bench(
        "training",
        "train_peers.py",
        ["{data}", "--out", "{results}/training.md"],
        ["--rounds", "1", "--kinds", "gsm8k"],
        "trl",
    ),
    Bench("one-core", "verify_speed.py", ["--only", "one-core"]),
    Bench("cores", "verify_speed.py", ["--only", "cores"]),
    Bench("hostile", "peers_hostile.py", ["{data}"]),
    Bench(
        "generation",
        "generate_stage.py",
        ["local", "--prompts", "20"],
        ["--rounds", "1", "--prompts", "8"],
    ),
    Bench("vllm", "generate_stage.py", ["vllm", "--python", "{vllm}"], ["--rounds", "1"]),
    Bench(
        "orchestration",
        "orchestration.py",
        ["--shards", "1000", "--out", "{results}/orchestration.md"],
        ["--shards", "100"],
    ),
    Bench("rerun", "peers_kills.py", ["rerun", "{peers}"]),
    Bench(
        "kills-distilabel", "peers_kills.py", ["kills", "{peers}", "--peer", "distilabel"], ["--kills", "1"]
    ),
    Bench("kills-curator", "peers_kills.py", ["kills", "{peers}", "--peer", "curator"], ["--kills", "1"]),
    Bench("scale", "peers_scale.py", [], ["--rows", "10000,100000"]),
)


def run(bench: Bench, words: dict[str, str], quick: bool) -> tuple[list[Row], str]:
    """Run one script; returns its rows and, if it failed, why."""
    python = words[bench.python]
    needed = [python, *(words[name] for name in ("peers", "vllm") if f"{{{name}}}" in bench.arguments)]
    for interpreter in needed:
        if not Path(interpreter).exists():
            remedy = "Make it with `make bench-env` (vLLM: `make vllm-env`)."
            return [], f"{interpreter}: there is no such interpreter. {remedy}"
    arguments = [argument.format(**words) for argument in [*bench.arguments, *(bench.quick if quick else ())]]
    if quick and "--out" in arguments:  # a short run's tables replace no long one's
        arguments[arguments.index("--out") + 1] = os.devnull
    rows = []
    command = [python, str(HERE / bench.script), *arguments]
    environment = os.environ | {"ADVDISTILL_BENCH_DATA": words["data"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if row := told(line):
                rows.append(row)
            else:
                print(line, end="", flush=True)
    if process.returncode:
        return rows, f"{bench.script} ended with {process.returncode}."
    return rows, "" if rows else f"{bench.script} told no figure."


def stamp(quick: bool) -> str:
    """When, on what and with which versions; the load says whether others were at work."""
    used = " ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "math-verify", "prefect"))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    load = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
    return f"{today}{f', {QUICK}' if quick else ''}, {load}, Python {platform.python_version()}, {used}"


def show(rows: Sequence[Row]) -> None:
    table = Table(*HEAD, title="ours beside the peers", show_lines=True)
    for row in rows:
        cells = row.cells()
        cells[6] = cells[6].strip("*")
        table.add_row(*cells, style={False: "red", True: None, None: "yellow"}[row.met])
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main(arguments: Sequence[str] | None = None, benches: Sequence[Bench] = BENCHES) -> int:
    names = [bench.name for bench in benches]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=str(names))
    parser.add_argument("--quick", action="store_true", help="minutes rather than an hour")
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="the peers' environments")
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm/bin/python"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    words = {
        "ours": sys.executable,
        "trl": str(given.peers / "trl/bin/python"),
        "peers": str(given.peers / "data/bin/python"),
        "vllm": str(given.vllm),
        "data": str(given.data),
        "results": str(given.results),
    }
    failures, new = [], []
    for bench in benches:
        if bench.name not in given.only:
            continue
        print(f"== {bench.name}", flush=True)
        rows, failure = run(bench, words, given.quick)
        rows = [dataclasses.replace(row, measured=stamp(given.quick)) for row in rows]
        keep(given.results, rows)  # at once: a later script may be interrupted
        new += rows
        failures += [f"{bench.name}: {failure}"] if failure else []
    show(new)
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"all rows, also of earlier calls: {given.results / 'README.md'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
