"""What Prefect adds: the same stages as bare functions and as a flow, with many shards.

    python tests/bench/orchestration.py [--prompts 1000] [--rounds 3]

Each prompt is a shard of one short response by a tiny random model, so that what is measured
is the handling of shards, not the model. Load and generate run alternately without Prefect
and as the flow `generate`, each time in a fresh root; Prefect's import and the server's start
are reported apart. Prints one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from advdistill_core.child import run_in_child
from advdistill_core.config import DistillConfig
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Store
from flows import catalog
from flows.server import connect


def configure(root: Path, prompts: int) -> DistillConfig:
    overrides = [f"prompts.num_train={prompts}", "prompts.num_heldout=0", "teacher.k=1"]
    overrides += ["teacher.shard_size=1", "teacher.max_new_tokens=1", f"storage.root={root}"]
    overrides += ['prompts.families=[{"name": "chain_sum", "params": {"min_terms": 3, "max_terms": 3}}]']
    return catalog.load("smoke", overrides)


def bare(config: DistillConfig) -> float:
    """Seconds of the stages without Prefect."""
    began = time.monotonic()
    prompts = run_stage(LOAD, config, {}, Store(config.storage.root))
    run_in_child(GENERATE, config, {"prompts": prompts})
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()

    began = time.monotonic()
    server = connect()
    from prefect import flow

    from flows.generate import generate_flow

    if server:
        server.wait()
    start_s = time.monotonic() - began

    @flow
    def empty() -> None:
        """Prefect's first flow pays for its imports; it is not what is measured."""

    empty()
    found: dict[str, list[float]] = {"bare_s": [], "flow_s": [], "cached_s": []}
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found["bare_s"].append(bare(configure(Path(folder) / "bare", asked.prompts)))
            config = configure(Path(folder) / "flow", asked.prompts)
            for name in ("flow_s", "cached_s"):
                began = time.monotonic()
                generate_flow(config)
                found[name].append(time.monotonic() - began)
    middle: dict[str, Any] = {name: round(statistics.median(values), 2) for name, values in found.items()}
    middle["overhead_s"] = round(middle["flow_s"] - middle["bare_s"], 2)
    middle |= {"shards": asked.prompts, "rounds": asked.rounds, "prefect_start_s": round(start_s, 2)}
    print(json.dumps({**middle, "all": {k: [round(v, 2) for v in vs] for k, vs in found.items()}}))


if __name__ == "__main__":
    main()
