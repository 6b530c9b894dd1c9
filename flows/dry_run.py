"""What a run would do: which stages are there already, without running any."""

import json

from rich.console import Console
from rich.table import Table

from advdistill_core import stages
from advdistill_core.config import DistillConfig
from advdistill_core.store import ArtifactRef, Store

# label, stage, its inputs by the label that produces them, its variant
_STEPS: tuple[tuple[str, stages.Stage, dict[str, str], dict[str, str]], ...] = (
    ("load", stages.LOAD, {}, {}),
    ("evaluate before", stages.EVALUATE, {"prompts": "load"}, {"model": "student_before"}),
    ("generate", stages.GENERATE, {"prompts": "load"}, {}),
    ("verify", stages.VERIFY, {"prompts": "load", "responses": "generate"}, {}),
    ("weigh", stages.WEIGH, {"responses": "generate", "rewards": "verify"}, {}),
    (
        "train",
        stages.TRAIN,
        {"prompts": "load", "responses": "generate", "weights": "weigh", "rewards": "verify"},
        {},
    ),
    (
        "evaluate after",
        stages.EVALUATE,
        {"prompts": "load", "student": "train"},
        {"model": "student_after"},
    ),
    (
        "publish",
        stages.PUBLISH,
        {
            "prompts": "load",
            "responses": "generate",
            "rewards": "verify",
            "weights": "weigh",
            "student": "train",
            "scores_before": "evaluate before",
            "scores_after": "evaluate after",
        },
        {},
    ),
)


def plan(config: DistillConfig) -> dict[str, str]:
    """For each step of `distill`: `cached`, or `would run`.

    What follows a stage that would run is reported as running too: whether its result is
    there is known only when its inputs are.
    """
    store = Store(config.storage.root, config.storage.deep_verify)
    found: dict[str, ArtifactRef] = {}
    outcome = {}
    for label, stage, sources, params in _STEPS:
        ref = None
        if label == "train" and config.student.negatives.kind == "off":
            sources = {name: source for name, source in sources.items() if name != "rewards"}
        if all(source in found for source in sources.values()):
            inputs = {name: found[source] for name, source in sources.items()}
            ref = store.find(stage.name, stages.plan_stage(stage, config, inputs, store, params).fingerprint)
        outcome[label] = "cached" if ref else "would run"
        if ref:
            found[label] = ref
    return outcome


def show_plan(config: DistillConfig, as_json: bool) -> None:
    """Print the plan."""
    outcome = plan(config)
    if as_json:
        print(json.dumps({"name": config.name, "root": config.storage.root, "stages": outcome}))
        return
    table = Table("stage", "outcome")
    for label, what in outcome.items():
        table.add_row(label, what)
    Console().print(table)
