"""What `advdistill deploy` registers: the deployments, as data, without importing Prefect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from advdistill_core.config import DistillConfig, RedistillConfig
from advdistill_core.config.loading import read_recipe
from flows import catalog
from flows.server import HEARTBEAT_S

CPU, GPU = "cpu", "gpu"
#: What tells our runs from others on the same server.
TAG = "advdistill"
_ENVIRONMENT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S), "DO_NOT_TRACK": "1"}

Overlap = Literal["ENQUEUE", "CANCEL_NEW"]


@dataclass(frozen=True)
class Deployment:
    """A flow that can be started from the UI, by schedule or by another flow.

    Args:
        entrypoint: `module:flow`; workers import it from the installed package.
        limit: runs at once, or None.
        overlap: what a run beyond the limit does: wait (ENQUEUE) or be cancelled.
        cron: when it runs by itself, in UTC, once somebody switches the schedule on; its slug is
            the deployment's name.
    """

    flow: str
    name: str
    entrypoint: str
    description: str
    pool: str = CPU
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = (TAG,)
    limit: int | None = None
    overlap: Overlap = "ENQUEUE"
    cron: str | None = None

    @property
    def job_variables(self) -> dict[str, Any]:
        """Without `stream_output` a flow outlives its worker, so a killed worker loses nothing."""
        return {"env": dict(_ENVIRONMENT), "stream_output": False}


def deployments(root: str, overlap: Overlap = "ENQUEUE", complete: bool = True) -> list[Deployment]:
    """Every deployment, with the recipes as the values that its form starts with.

    Args:
        root: folder or URI of the artifacts, the same for all workers.
        overlap: what a re-distillation does while another one runs.
        complete: spell out every field, not only those that a recipe sets.
    """
    default = parameters({"name": "distill"}, root, complete)
    listed = [
        Deployment(
            "distill",
            name,
            "flows.distill:distill",
            catalog.about(path),
            parameters={"config": parameters({"name": name, **read_recipe(path)}, root, complete)},
            tags=(TAG, "recipe"),
        )
        for name, path in catalog.shipped().items()
    ]
    listed += [
        Deployment("generate", "default", "flows.generate:generate_flow", "Only the teacher's responses."),
        Deployment("train", "default", "flows.train:train_flow", "Everything up to a trained student."),
        Deployment("evaluate", "default", "flows.evaluate:evaluate_flow", "Measure one model."),
        Deployment(
            "compare", "default", "flows.compare:compare", "Methods side by side on the same responses."
        ),
    ]
    listed = [d if d.parameters else _with(d, {"config": default}) for d in listed]
    redistill = parameters({"name": "redistill"}, root, complete)
    return [
        *listed,
        Deployment(
            "redistill",
            "nightly",
            "flows.redistill:redistill",
            "Distil what is new since the champion; promote the student if it is better.",
            parameters={"config": redistill, "policy": RedistillConfig().model_dump(mode="json")},
            limit=1,
            overlap=overlap,
            cron="0 3 * * *",
        ),
        Deployment(
            "stage",
            "gpu",
            "flows.gpu_stage:gpu_stage",
            "One stage on the GPU pool; started by the other flows.",
            pool=GPU,
            tags=(TAG, "internal"),
        ),
    ]


def parameters(document: Mapping[str, Any], root: str, complete: bool = True) -> dict[str, Any]:
    """A recipe placed on the pools, with every field spelled out unless told otherwise.

    It is not validated: a recipe may leave a field, such as a file's path, to the form.
    """
    placed = {"placement": "pools", "storage": {"root": root}}
    chosen = {name: value for name, value in document.items() if name != "about"}
    base = DistillConfig().model_dump(mode="json") if complete else {}
    return _merge(base, _merge(chosen, placed))


def prefect_yaml(listed: list[Deployment]) -> dict[str, Any]:
    """The same deployments as a file for `prefect deploy --all --prefect-file`."""
    return {"name": "advdistill", "pull": None, "deployments": [_entry(d) for d in listed]}


def _entry(deployment: Deployment) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": deployment.name,
        "description": deployment.description,
        "entrypoint": deployment.entrypoint,
        "tags": list(deployment.tags),
        "work_pool": {"name": deployment.pool, "job_variables": deployment.job_variables},
        "parameters": dict(deployment.parameters),
    }
    if deployment.limit:
        entry["concurrency_limit"] = {"limit": deployment.limit, "collision_strategy": deployment.overlap}
    return entry  # no schedule: `prefect deploy` would switch it on, or off again each time


def _with(deployment: Deployment, parameters: Mapping[str, Any]) -> Deployment:
    return Deployment(**{**deployment.__dict__, "parameters": parameters})


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = (
            _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return merged
