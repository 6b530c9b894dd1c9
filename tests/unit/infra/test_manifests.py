"""The compose file and the Kubernetes objects: valid, with auth, not root, no default secrets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

INFRA = Path(__file__).resolve().parents[3] / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
OBJECTS = yaml.safe_load((INFRA / "k8s" / "advdistill.yaml").read_text())["items"]
OURS = [name for name in COMPOSE["services"] if name != "postgres"]


def pods() -> dict[str, dict[str, Any]]:
    """The pod templates by name."""
    kinds = ("Deployment", "StatefulSet", "Job")
    return {o["metadata"]["name"]: o["spec"]["template"]["spec"] for o in OBJECTS if o["kind"] in kinds}


def test_compose_follows_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(INFRA / "compose.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_compose_check_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(yaml.safe_dump({"services": {"server": {"imagee": "x"}}}))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert subprocess.run([*command, str(broken)], capture_output=True).returncode != 0


@pytest.mark.parametrize("item", OBJECTS, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_kubernetes_objects_follow_their_schemas(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, "1.31", strict=True)


def test_the_kubernetes_check_can_fail() -> None:
    broken = {**OBJECTS[-1], "spec": {**OBJECTS[-1]["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


@pytest.mark.parametrize("name", OURS)
def test_compose_services_are_not_root(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", sorted(pods()))
def test_pods_are_not_root(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_image_is_not_root() -> None:
    lines = (INFRA / "docker" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]


def test_the_api_asks_for_a_password_that_nobody_knows() -> None:
    server = COMPOSE["services"]["server"]
    assert server["environment"]["PREFECT_SERVER_API_AUTH_STRING"].startswith("${PREFECT_AUTH:?")
    for name in OURS[1:]:
        assert COMPOSE["services"][name]["environment"]["PREFECT_API_AUTH_STRING"].startswith(
            "${PREFECT_AUTH:?"
        )
    assert server["ports"] == ["127.0.0.1:4200:4200"]
    environment = {e["name"]: e for e in pods()["prefect-server"]["containers"][0]["env"]}
    assert "secretKeyRef" in environment["PREFECT_SERVER_API_AUTH_STRING"]["valueFrom"]
    for name in ("deploy", "cpu-worker", "gpu-worker"):
        (entry,) = pods()[name]["containers"][0]["env"]
        assert entry["name"] == "PREFECT_API_AUTH_STRING"
        assert "secretKeyRef" in entry["valueFrom"]


def test_a_gpu_worker_takes_one_stage_at_a_time() -> None:
    commands = [
        COMPOSE["services"]["gpu-worker"]["command"],
        pods()["gpu-worker"]["containers"][0]["command"],
    ]
    for command in commands:
        assert command[command.index("--limit") + 1] == "1"
        assert command[command.index("--pool") + 1] == "gpu"
