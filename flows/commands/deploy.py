"""`advdistill deploy`: pools, limits, deployments and the watch over dead runs, on a server."""

import importlib
import sys
from datetime import timedelta
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from flows.commands import kept
from flows.deployments import CPU, GPU, TAG, Deployment, Overlap, deployments
from flows.server import HEARTBEAT_S

WATCH = "advdistill: runs without heartbeats have crashed"


def deploy(
    root: str, gpus: int = 1, overlap: Overlap = "ENQUEUE", flows: int | None = None
) -> dict[str, str]:
    """Register everything; what is there already is brought up to date.

    Args:
        root: folder or URI of the artifacts, the same for all workers.
        gpus: slots of the GPU pool: one stage at a time on each.
        overlap: what a re-distillation does while another one runs.
        flows: slots of the CPU pool: flows at once, or None for any number.

    Returns:
        The id of each deployment by `flow/name`.
    """
    print("Registering the deployments ...", file=sys.stderr, flush=True)  # a busy machine needs a minute
    with get_client(sync_client=True) as client:
        ensure_pool(client, CPU, flows)
        ensure_pool(client, GPU, gpus)
        ids = {f"{d.flow}/{d.name}": apply(client, d) for d in deployments(root, overlap)}
        watch_for_dead_runs(client)
    return ids


def ensure_pool(client: SyncPrefectClient, name: str, limit: int | None) -> None:
    """A process work pool with a concurrency limit."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=limit))
        return
    client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))


def apply(client: SyncPrefectClient, deployment: Deployment) -> str:
    """Create or update one deployment; returns its id."""
    module, _, name = deployment.entrypoint.partition(":")
    flow = getattr(importlib.import_module(module), name)
    known = _known(client, deployment)
    parameters, said = kept.parameters(deployment, known)
    if said:
        print(said, file=sys.stderr, flush=True)
    options: dict[str, Any] = {
        "description": deployment.description,
        "entrypoint": deployment.entrypoint,
        "path": ".",
        "pull_steps": [],
        "work_pool_name": deployment.pool,
        "job_variables": deployment.job_variables,
        "version": kept.mark(deployment.parameters),
        "parameters": parameters,
        "parameter_openapi_schema": form(flow),
        "enforce_parameter_schema": True,
        "tags": list(deployment.tags),
    }
    if deployment.limit:
        options["concurrency_limit"] = deployment.limit
        options["concurrency_options"] = ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy(deployment.overlap)
        )
    schedules = _schedules(known, deployment)
    if known and len(schedules) == len(known.schedules):
        # Made anew, its schedules would get new ids.
        client.update_deployment(known.id, DeploymentUpdate(**options))
        return str(known.id)
    flow_id = client.create_flow_from_name(flow.name)
    return str(client.create_deployment(flow_id, deployment.name, schedules=schedules, **options))


def form(flow: Flow[..., Any]) -> dict[str, Any]:
    """The form of a flow in the UI: its signature, with labels and help texts for people."""
    schema = parameter_schema(flow).model_dump(exclude_unset=True)
    for name, field in schema["properties"].items():
        field["title"] = name.replace("_", " ").capitalize()
        if text := field.get("description"):
            field["description"] = text[0].upper() + text[1:]
    models = schema["definitions"]
    for model in models.values():
        for field in model.get("properties", {}).values():
            item = models.get(field.get("items", {}).get("$ref", "").rpartition("/")[2], {})
            # For a mapping the UI draws no input, and drops what is typed for one in a list.
            if any("additionalProperties" in inner for inner in item.get("properties", {}).values()):
                field["description"] += ' To change their parameters here: "Use JSON Input" at the right.'
    return schema


def _known(client: SyncPrefectClient, deployment: Deployment) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(f"{deployment.flow}/{deployment.name}")
    except ObjectNotFound:
        return None


def _schedules(known: DeploymentResponse | None, deployment: Deployment) -> list[DeploymentScheduleCreate]:
    """What is there already, whoever made it, and ours if it is missing: switched off.

    The server replaces the schedules of a deployment by those that it is sent.
    """
    fields = set(DeploymentScheduleCreate.model_fields) - {"replaces"}
    found = [
        DeploymentScheduleCreate.model_validate(old.model_dump(include=fields))
        for old in (known.schedules if known else [])
    ]
    if not deployment.cron or any(schedule.slug == deployment.name for schedule in found):
        return found
    cron = CronSchedule(cron=deployment.cron, timezone="UTC")
    return [*found, DeploymentScheduleCreate(schedule=cron, active=False, slug=deployment.name)]


def watch_for_dead_runs(client: SyncPrefectClient) -> None:
    """Let the server mark runs whose process was killed, from their missing heartbeats."""
    watch = AutomationCore(
        name=WATCH,
        description="A run's process sends heartbeats; three missed in a row and it is dead.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            # Other flows of the same server may send theirs seldom, as Prefect's default is.
            match_related=ResourceSpecification(
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * HEARTBEAT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="no heartbeats came: its process is gone, or the server was too busy",
            )
        ],
    )
    there = client.read_automations_by_name(WATCH)
    if not there:
        client.create_automation(watch)
    for old in there:  # one of an earlier version watches the runs of all flows
        if isinstance(old.trigger, EventTrigger) and old.trigger.match_related == ResourceSpecification({}):
            client.update_automation(old.id, watch.model_copy(update={"enabled": old.enabled}))
