"""Deployments as data, and the file for `prefect deploy` that is written from them."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound

from advdistill_core.config import DistillConfig, RedistillConfig
from flows import catalog
from flows.commands import deploy
from flows.commands.deploy import apply
from flows.deployments import Deployment, deployments

ROOT = Path(__file__).resolve().parents[3]
LISTED = deployments("/data/store")


def test_the_committed_file_is_what_the_command_prints() -> None:
    command = [sys.executable, "-m", "flows.cli", "deploy", "--print"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    committed = (ROOT / "infra" / "prefect.yaml").read_text()
    assert committed == printed, "advdistill deploy --print > infra/prefect.yaml"


def test_every_recipe_can_be_chosen() -> None:
    assert {d.name for d in LISTED if d.flow == "distill"} == set(catalog.shipped())


@pytest.mark.parametrize(
    "deployment", [d for d in LISTED if d.flow != "stage"], ids=lambda d: f"{d.flow}/{d.name}"
)
def test_a_form_starts_with_every_field_of_its_recipe(deployment) -> None:
    config = dict(deployment.parameters["config"])
    assert set(config) == set(DistillConfig.model_fields)
    if config["prompts"]["source"] == "file":
        config["prompts"] = {**config["prompts"], "path": "questions.jsonl"}
    built = DistillConfig.model_validate(config)
    assert built.placement == "pools"
    assert built.storage.root == "/data/store"
    if deployment.flow == "distill":
        overrides = ["prompts.path=questions.jsonl"] if built.prompts.source == "file" else []
        recipe = catalog.load(deployment.name, overrides)
        ours = {"placement": "local", "storage": recipe.storage.model_dump()}
        assert DistillConfig.model_validate({**built.model_dump(), **ours}) == recipe


def test_the_gpu_pool_gets_only_single_stages() -> None:
    assert [f"{d.flow}/{d.name}" for d in LISTED if d.pool == "gpu"] == ["stage/gpu"]


def test_one_redistillation_at_a_time_by_schedule() -> None:
    (entry,) = (
        e
        for e in yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text())["deployments"]
        if e["name"] == "nightly"
    )
    assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert "schedules" not in entry, "`prefect deploy` would switch it on, or off again each time"
    (nightly,) = (d for d in LISTED if d.cron)
    assert (nightly.name, nightly.cron) == ("nightly", "0 3 * * *")
    assert RedistillConfig.model_validate(entry["parameters"]["policy"]) == RedistillConfig()


def test_every_entrypoint_is_a_flow_with_that_name() -> None:
    import importlib

    from prefect import Flow

    for deployment in LISTED:
        module, _, name = deployment.entrypoint.partition(":")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow)
        assert flow.name == deployment.flow


def test_forms_have_titles_descriptions_and_an_order() -> None:
    """Every field of the configuration, however deep: a label, a help text, a place."""

    def check(model: dict, definitions: dict, where: str) -> int:
        count = 0
        for name, field in model.get("properties", {}).items():
            at = f"{where}.{name}"
            assert field.get("title"), at
            assert field.get("description"), at
            assert "position" in field, at
            target = field.get("$ref") or field.get("items", {}).get("$ref", "")
            count += 1
            if target:
                count += check(definitions[target.rpartition("/")[2]], definitions, at)
        return count

    schema = DistillConfig.model_json_schema()
    assert check(schema, schema["$defs"], "config") > 50
    policy = RedistillConfig.model_json_schema()
    assert check(policy, {}, "policy") == len(RedistillConfig.model_fields)


def test_the_form_has_labels_for_people() -> None:
    from flows.commands.deploy import form
    from flows.distill import distill

    schema = form(distill)
    labels = {name: field["title"] for name, field in schema["properties"].items()}
    assert labels == {"config": "Config", "from_stage": "From stage"}
    assert all(field["description"][0].isupper() for field in schema["properties"].values())
    families = schema["definitions"]["PromptsConfig"]["properties"]["families"]
    assert "Use JSON Input" in families["description"], "its mapping has no input of its own"
    assert "Use JSON Input" not in str(schema["definitions"]["WeightingConfig"])


class Registry:
    """What a server remembers of deployments; like Prefect's, it replaces all by what it creates."""

    def __init__(self) -> None:
        self.schedules: dict[str, list[DeploymentSchedule]] = {}
        self.parameters: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, str | None] = {}

    def create_flow_from_name(self, name: str) -> str:
        return name

    def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        if name not in self.schedules:
            raise ObjectNotFound(http_exc=Exception(name))
        return SimpleNamespace(
            id=name,
            schedules=self.schedules[name],
            parameters=self.parameters[name],
            version=self.versions[name],
        )

    def create_deployment(
        self,
        flow_id: str,
        name: str,
        schedules: list[DeploymentScheduleCreate],
        parameters: dict[str, Any],
        version: str,
        **_: object,
    ) -> str:
        made = [DeploymentSchedule(**schedule.model_dump(exclude={"replaces"})) for schedule in schedules]
        self.schedules[f"{flow_id}/{name}"] = made
        self.parameters[f"{flow_id}/{name}"] = json.loads(json.dumps(parameters))
        self.versions[f"{flow_id}/{name}"] = version
        return name

    def update_deployment(self, name: str, update: DeploymentUpdate) -> None:
        sent = update.model_dump(exclude_unset=True)
        assert "schedules" not in sent
        self.parameters[name] = json.loads(json.dumps(sent["parameters"]))
        self.versions[name] = sent["version"]

    def register(self, listed: list[Deployment] = LISTED) -> None:
        for deployment in listed:
            apply(self, deployment)  # type: ignore[arg-type]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """One on which everything was registered; without the forms, which take long to write."""
    monkeypatch.setattr(deploy, "form", lambda flow: {})
    found = Registry()
    found.register()
    return found


def test_the_nightly_schedule_starts_switched_off_and_stays_as_a_user_left_it(registry: Registry) -> None:
    (nightly,) = registry.schedules["redistill/nightly"]
    assert (nightly.slug, nightly.active) == ("nightly", False)
    nightly.active = True
    nightly.schedule = CronSchedule(cron="0 5 * * 1", timezone="Europe/Paris")
    registry.register()
    (again,) = registry.schedules["redistill/nightly"]
    assert (again.active, again.schedule) == (True, nightly.schedule)


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("name", ["distill/quickstart", "compare/default", "redistill/nightly"])
def test_a_schedule_that_a_user_added_stays(registry: Registry, name: str, active: bool) -> None:
    """The UI's form gives a schedule no slug; one of the API may have one."""
    added = [
        DeploymentSchedule(
            schedule=IntervalSchedule(interval=3600.0),
            active=active,
            parameters={"from_stage": "train"},
            slug=slug,
            max_scheduled_runs=7,
        )
        for slug in (None, "hourly")
    ]
    registry.schedules[name] += added
    fields = {"id", "schedule", "active", "parameters", "slug", "max_scheduled_runs"}
    before = [schedule.model_dump(include=fields) for schedule in registry.schedules[name]]
    registry.register()
    after = [schedule.model_dump(include=fields) for schedule in registry.schedules[name]]
    assert after == before


def test_parameters_that_were_changed_on_the_server_stay(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registered = copy.deepcopy(registry.parameters)
    nightly = registry.parameters["redistill/nightly"]
    nightly["config"]["prompts"]["num_train"] = 777
    nightly["policy"]["margin"] = 0.25
    nightly["from_stage"] = "train"
    changed = copy.deepcopy(nightly)
    assert capsys.readouterr().err == ""
    for _ in range(2):  # the second time it must not be taken for ours
        registry.register()
        told = capsys.readouterr().err
        assert told == "The parameters of redistill/nightly, which were changed on the server, stay.\n"
    assert registry.parameters == registered | {"redistill/nightly": changed}


def test_parameters_that_nobody_changed_follow_the_package(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """So they do on a server on which a package registered them that left no mark."""
    registry.versions["distill/smoke"] = None
    registry.parameters["distill/smoke"]["config"]["teacher"]["k"] = 3
    newer = deployments("/data/other")
    registry.register(newer)
    assert registry.parameters == {f"{d.flow}/{d.name}": d.parameters for d in newer}
    assert capsys.readouterr().err == ""


def test_new_settings_and_the_common_root_reach_changed_parameters_too(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    old = registry.parameters["redistill/nightly"]
    old["config"]["teacher"] |= {"k": 3, "gone_since": 1}
    del old["config"]["teacher"]["seed"]
    (nightly,) = (d for d in deployments("/data/other") if d.name == "nightly")
    registry.register([nightly])
    now = registry.parameters["redistill/nightly"]["config"]
    expected = copy.deepcopy(dict(nightly.parameters))["config"]
    expected["teacher"]["k"] = 3
    assert now == expected
    root = LISTED[0].parameters["config"]["storage"]["root"]
    assert (
        f"storage.root, which was {root}, is that of all workers now: /data/other." in capsys.readouterr().err
    )
