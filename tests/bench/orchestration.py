"""What Prefect adds: the same stages as bare functions and as flows.

    python tests/bench/orchestration.py [--shards 1000] [--rounds 2] [--out FILE.md]

Three questions, each asked of the same code with and without Prefect, alternately, every time in
a fresh root, against one server on loopback that is started before:

1. a whole distillation (the recipe `smoke`: eight stages, four of them processes of their own);
2. a generation of many shards: each prompt is a shard of one token, so that what is measured is
   the handling of shards, not the model;
3. a re-run of the first where everything is cached: inside the process, and as the command
   `advdistill run` beside an empty flow of Prefect's, which pays for the same imports.

Without Prefect the flow's own function runs with a recorder that calls each task's function.
Prints a table and writes it to FILE.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advdistill_core.config import DistillConfig
from advdistill_core.store import Store
from flows import catalog
from flows.server import connect

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


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def bare(module: Any, flow: Any, config: DistillConfig) -> float:
    """Seconds of a flow's function without Prefect."""
    recorder = module.RunRecorder
    module.RunRecorder = Bare
    try:
        return seconds(lambda: flow.fn(config))
    finally:
        module.RunRecorder = recorder


def compare(module: Any, flow: Any, rounds: int, configure: Callable[[str], DistillConfig]) -> dict[str, Any]:
    """Medians of `rounds` runs without Prefect, as a flow, and as a flow with everything cached."""
    found: dict[str, list[float]] = {"bare": [], "flow": [], "cached": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            config = configure(f"{folder}/flow")
            if number % 2:  # who goes first meets colder files
                found["flow"].append(seconds(lambda c=config: flow(c)))
            found["bare"].append(bare(module, flow, configure(f"{folder}/bare")))
            if not number % 2:
                found["flow"].append(seconds(lambda c=config: flow(c)))
            found["cached"].append(seconds(lambda c=config: flow(c)))
        print({name: [round(v, 2) for v in values] for name, values in found.items()}, flush=True)
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {**middle, "all": found}


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


def row(name: str, found: dict[str, Any]) -> str:
    extra = found["flow"] - found["bare"]
    figures = [found["bare"], found["flow"], extra]
    return (
        f"| {name} | " + " | ".join(f"{v:.2f}" for v in figures) + f" | {100 * extra / found['bare']:.1f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
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
    whole = compare(
        flows.distill, flows.distill.distill, asked.rounds, lambda root: catalog.load("smoke", [], root)
    )
    many = compare(flows.generate, flows.generate.generate_flow, 1, lambda root: shards(asked.shards, root))
    empty_s, run_s = command_again()
    lines = [
        "# What Prefect adds",
        "",
        f"`python tests/bench/orchestration.py --shards {asked.shards} --rounds {asked.rounds}`",
        "",
        "Seconds, medians; the server runs already. What is measured is described in the script.",
        "",
        "| | bare | flow | more | |",
        "|---|---|---|---|---|",
        row("`smoke`, eight stages", whole),
        row(f"generation of {asked.shards} shards", many),
        "",
        "| everything cached | seconds |",
        "|---|---|",
        f"| the eight stages, inside the process | {whole['cached']:.2f} |",
        f"| generation of {asked.shards} shards, inside the process | {many['cached']:.2f} |",
        f"| `advdistill run smoke`, as a command | {run_s:.2f} |",
        f"| an empty Prefect flow, as a command | {empty_s:.2f} |",
    ]
    print("\n".join(lines))
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
