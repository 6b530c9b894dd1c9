"""Task: rewards into advantages and training weights."""

import logging
from collections.abc import Mapping
from typing import Any

import httpx
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException

from advdistill_core.config import DistillConfig
from advdistill_core.stages import WEIGH
from advdistill_core.store import ArtifactRef, Store
from tasks.cache import cached
from tasks.perform import perform


@task(**cached(WEIGH))
def weigh(config: DistillConfig, responses: ArtifactRef, rewards: ArtifactRef) -> ArtifactRef:
    """Turn each group's rewards into weights."""
    ref = perform(WEIGH, config, responses=responses, rewards=rewards)
    if TaskRunContext.get() is not None:
        _show(summary(Store(config.storage.root).open(ref).manifest.metrics))
    return ref


def summary(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The weights in a few rows: what is trained on, how it is weighted, what was dropped and why."""
    kinds = ("mixed", "all_correct", "all_wrong", "ungradable")
    rows = [("prompts", metrics["num_groups"])]
    rows += [(f"prompts {kind.replace('_', ' ')}", metrics[kind]) for kind in kinds]
    rows += [(f"prompts dropped: {why}", count) for why, count in metrics["dropped_because"].items()]
    rows += [
        ("responses", metrics["num_responses"]),
        ("responses trained on", metrics["trained_responses"]),
        ("responses of too little weight", metrics.get("slight_responses", 0)),
        ("responses merged into an equal one", metrics["merged_responses"]),
        ("effective sample size, responses per prompt", round(metrics["effective_sample_size"], 3)),
        ("share of the weight on correct responses", round(metrics["weight_on_correct_frac"], 4)),
    ]
    rows += [
        (
            f"with {row['num_correct']} of {row['num_gradable']} correct ({row['num_groups']} prompts)",
            f"size {row['effective_sample_size']:.2f}, on correct {row['weight_on_correct_frac']:.1%}",
        )
        for row in metrics["by_num_correct"]
    ]
    return [{"what": name, "value": value} for name, value in rows]


def _show(rows: list[dict[str, Any]]) -> None:
    """Keep the table with the run; a server that does not answer costs the display only."""
    try:
        create_table_artifact(rows, key="weights", description="The weights of the training")
    except (httpx.HTTPError, PrefectException) as error:
        logging.getLogger(__name__).warning("weights not shown: %s", error)
