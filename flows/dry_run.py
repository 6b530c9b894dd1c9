"""What a run would do: which stages are there already, without running any."""

import json

from rich.console import Console
from rich.table import Table

from advdistill_core import stages
from advdistill_core.config import DistillConfig
from advdistill_core.store import ArtifactRef, Store
from flows.run_record import BEFORE, TEACHER

# label, stage, its inputs by the label that produces them, its variant
_Step = tuple[str, stages.Stage, dict[str, str], dict[str, str]]
_GATED = {"prompts": "gate prompts", "responses": "gate responses"}


def steps(config: DistillConfig) -> list[_Step]:
    """What `distill` does with a configuration."""
    sets = {f"sets/{chosen.name}": f"questions {chosen.name}" for chosen in config.evaluation.sets}
    training = {**_GATED, "weights": "weigh"}
    training |= {} if config.student.negatives.kind == "off" else {"rewards": "verify"}
    before, after = (
        _measured(config, "student_before", BEFORE),
        _measured(config, "student_after", "evaluate after"),
    )
    teacher = _measured(config, "teacher", TEACHER) if config.evaluation.teacher else []
    found: list[_Step] = [
        ("load", stages.LOAD, {}, {}),
        *((label, stages.QUESTIONS, {}, {"set": name.split("/")[1]}) for name, label in sets.items()),
        ("gate prompts", stages.GATE_PROMPTS, {"prompts": "load", **sets}, {}),
        *before,
        *teacher,
        ("generate", stages.GENERATE, {"prompts": "gate prompts"}, {}),
        ("gate responses", stages.GATE_RESPONSES, {**_GATED, "responses": "generate", **sets}, {}),
        ("verify", stages.VERIFY, _GATED, {}),
        ("weigh", stages.WEIGH, {"responses": "gate responses", "rewards": "verify"}, {}),
        ("train", stages.TRAIN, training, {}),
        *after,
    ]
    scores = {
        f"scores/{who}/{_place(params)}": label
        for who, measured in (("before", before), ("teacher", teacher), ("after", after))
        for label, _, _, params in measured
    }
    inputs = {"loaded": "load", "generated": "generate", "rewards": "verify", "student": "train"}
    inputs |= {"weights": "weigh", **_GATED, **scores}
    inputs |= {f"scores_{who}": inputs.pop(f"scores/{who}/heldout") for who in ("before", "after")}
    if config.evaluation.likelihoods:
        for when, sources in (("before", {}), ("after", {"student": "train"})):
            asked = {**_GATED, "rewards": "verify", **sources}
            found.append((f"likelihood {when}", stages.LIKELIHOOD, asked, {"model": f"student_{when}"}))
            inputs[f"likelihoods/{when}"] = f"likelihood {when}"
    if config.evaluation.harness.tasks:
        for who, label, sources in (
            ("before", BEFORE, {}),
            ("after", "evaluate after", {"student": "train"}),
        ):
            step = f"{label} standard tasks"
            found.append((step, stages.HARNESS, sources, {"model": f"student_{who}"}))
            inputs[f"standard/{who}"] = step
    return [*found, ("publish", stages.PUBLISH, inputs, {})]


def _measured(config: DistillConfig, model: str, label: str) -> list[_Step]:
    """A model on every set, by its ordinary answers and by the further samples."""
    found: list[_Step] = []
    for name in ("", *(chosen.name for chosen in config.evaluation.sets)):
        for sampling in ("", "samples") if config.evaluation.more_samples else ("",):
            given = {key: value for key, value in (("set", name), ("sampling", sampling)) if value}
            inputs = {"prompts": f"questions {name}" if name else "gate prompts"}
            inputs |= {"student": "train"} if model == "student_after" else {}
            step = " ".join([label, *given.values()])
            found.append((step, stages.EVALUATE, inputs, {"model": model, **given}))
    return found


def _place(params: dict[str, str]) -> str:
    return "/".join([params.get("set", "heldout"), *(["samples"] if "sampling" in params else [])])


def plan(config: DistillConfig) -> dict[str, str]:
    """For each step of `distill`: `cached`, or `would run`.

    What follows a stage that would run is reported as running too: whether its result is
    there is known only when its inputs are.
    """
    store = Store(config.storage.root, config.storage.deep_verify)
    found: dict[str, ArtifactRef] = {}
    outcome = {}
    for label, stage, sources, params in steps(config):
        ref = None
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
