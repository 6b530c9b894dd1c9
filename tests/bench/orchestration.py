"""What Prefect adds: the same stages as bare functions and as flows.

    python tests/bench/orchestration.py [--shards 1000] [--rounds 1] [--out FILE.md]

Three questions, each asked of the same code with and without Prefect, alternately, every time in
a fresh root, against one server on loopback that is started before:

1. a whole distillation (the recipe `smoke`; four of its stages are processes of their own);
2. a generation of many shards: each prompt is a shard of one token, so that what is measured is
   the handling of shards, not the model;
3. a re-run of the first where everything is cached: inside the process, and as the command
   `advdistill run` beside an empty flow of Prefect's, which pays for the same imports.

Without Prefect the flow's own function runs with a recorder that calls each task's function.
Processor seconds are those of this process and of the server, without the children that load
models; they say the same on a busy machine. Prints a table and writes it to FILE.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from advdistill_core.config import DistillConfig
from advdistill_core.home import home
from advdistill_core.store import Store
from flows import catalog
from flows.server import connect

sys.path.insert(0, str(Path(__file__).parent))
from rows import Row, tell

EMPTY_FLOW = "from prefect import flow\n@flow\ndef empty():\n    pass\nempty()"


class Bare:
    """In place of `RunRecorder`: calls the tasks' functions, without Prefect and without records."""

    def __init__(self, config: DistillConfig, from_stage: str = "first missing") -> None:
        self.config = config
        self.store = Store(config.storage.root)

    def step(self, task: Any, *args: Any, label: str = "", config: Any = None, **kwargs: Any) -> Any:
        return task.fn(config or self.config, *args, **kwargs)

    def finish(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall, and of the processor in this process and the server."""

    wall: float
    cpu: float


def cost(work: Callable[[], object], server: psutil.Process | None) -> Cost:
    def used() -> float:
        family = [server, *server.children(recursive=True)] if server else []
        times = [process.cpu_times() for process in family]
        return time.process_time() + sum(t.user + t.system for t in times)

    wall, cpu = time.monotonic(), used()
    work()
    wall = time.monotonic() - wall
    if server:
        time.sleep(3)  # it writes down afterwards what it was told
    return Cost(wall, used() - cpu)


def seconds(work: Callable[[], object]) -> float:
    return cost(work, None).wall


def bare(module: Any, flow: Any, config: DistillConfig) -> Cost:
    """What a flow's function costs without Prefect."""
    recorder = module.RunRecorder
    module.RunRecorder = Bare
    try:
        return cost(lambda: flow.fn(config), None)
    finally:
        module.RunRecorder = recorder


def compare(
    module: Any, flow: Any, rounds: int, server: psutil.Process, configure: Callable[[str], DistillConfig]
) -> dict[str, Cost]:
    """Medians of `rounds` runs without Prefect, as a flow, and as a flow with everything cached."""
    found: dict[str, list[Cost]] = {"bare": [], "flow": [], "cached": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            config = configure(f"{folder}/flow")
            found["bare"].append(bare(module, flow, configure(f"{folder}/bare")))
            for name in ("flow", "cached"):
                found[name].append(cost(lambda c=config: flow(c), server))
        print({name: costs[-1] for name, costs in found.items()}, flush=True)
    return {
        name: Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))
        for name, costs in found.items()
    }


def shards(number: int, root: str) -> DistillConfig:
    overrides = [f"prompts.num_train={number}", "prompts.num_heldout=0", "teacher.k=1"]
    overrides += ["teacher.shard_size=1", "teacher.max_new_tokens=1"]
    overrides += ['prompts.families=[{"name": "chain_sum", "params": {"min_terms": 3, "max_terms": 3}}]']
    return catalog.load("smoke", overrides, root)


def command_again(repeats: int = 3) -> tuple[float, float]:
    """Seconds of an empty flow and of a fully cached `advdistill run`, each as a process."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "flows.cli", "run", "smoke", "--root", folder]
        empty = [sys.executable, "-c", EMPTY_FLOW]
        subprocess.run(run, check=True, capture_output=True)
        taken: dict[str, list[float]] = {"empty": [], "run": []}
        for _ in range(repeats):
            for name, command in (("empty", empty), ("run", run)):
                taken[name].append(
                    seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True))
                )
    return statistics.median(taken["empty"]), statistics.median(taken["run"])


def row(name: str, found: dict[str, Cost]) -> str:
    bare, flow = found["bare"], found["flow"]
    extra = flow.wall - bare.wall
    return (
        f"| {name} | {bare.wall:.1f} | {flow.wall:.1f} | {extra:+.1f} ({100 * extra / bare.wall:+.1f} %) "
        f"| {flow.cpu - bare.cpu:.1f} |"
    )


def tell_all(found: dict[str, dict[str, Cost]], empty_s: float, run_s: float) -> None:
    """The rows of the table of all benches."""
    for name, costs in found.items():
        bare, flow = costs["bare"], costs["flow"]
        extra = flow.wall - bare.wall
        tell(
            Row(
                f"orchestration, {name}", "bare functions", f"{flow.wall:.1f} s", f"{bare.wall:.1f} s", None,
                "at most 2 % or 5 s more", extra <= max(5, 0.02 * bare.wall),
                f"{extra:+.1f} s ({100 * extra / bare.wall:+.1f} %); processor {flow.cpu - bare.cpu:+.1f} s",
            )
        )  # fmt: skip
    tell(
        Row(
            "re-run of what is finished", "an empty Prefect flow", f"{run_s:.1f} s", f"{empty_s:.1f} s", None,
            "at most 3 s more than Prefect's start", run_s - empty_s <= 3,
            "`smoke`, as commands, server running; inside the process "
            f"{found['`smoke`, all stages']['cached'].wall:.2f} s",
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    server = connect()
    from prefect import flow

    import flows.distill
    import flows.generate

    if server:
        server.wait()
    flow(lambda: None, name="empty")()  # Prefect's first flow pays for its imports
    process = psutil.Process(json.loads((home() / "server.json").read_text())["pid"])
    whole = compare(
        flows.distill,
        flows.distill.distill,
        asked.rounds,
        process,
        lambda root: catalog.load("smoke", [], root),
    )
    many = compare(
        flows.generate,
        flows.generate.generate_flow,
        1,
        process,
        lambda root: shards(asked.shards, root),
    )
    empty_s, run_s = command_again()
    lines = [
        "# What Prefect adds",
        "",
        f"`python tests/bench/orchestration.py --shards {asked.shards} --rounds {asked.rounds}`",
        "",
        "Seconds, medians; the server runs already. What is measured is described in the script.",
        f"Load average of the machine at the end: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores.",
        "",
        "| | bare | flow | more | processor seconds more |",
        "|---|---|---|---|---|",
        row("`smoke`, all stages", whole),
        row(f"generation of {asked.shards} shards", many),
        "",
        "| everything cached | seconds |",
        "|---|---|",
        f"| `smoke`, all stages, inside the process | {whole['cached'].wall:.2f} |",
        f"| generation of {asked.shards} shards, inside the process | {many['cached'].wall:.2f} |",
        f"| `advdistill run smoke`, as a command | {run_s:.2f} |",
        f"| an empty Prefect flow, as a command | {empty_s:.2f} |",
    ]
    print("\n".join(lines))
    tell_all({"`smoke`, all stages": whole, f"generation of {asked.shards} shards": many}, empty_s, run_s)
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
