"""Names of runs: the recipe's in place of a generated one, a person's as it is."""

from types import SimpleNamespace

import pytest
from prefect.utilities.names import generate_slug

from advdistill_core.config import DistillConfig
from flows import run_name
from flows.distill import distill
from flows.evaluate import evaluate_flow
from flows.run_name import is_generated


def test_names_of_the_server_are_told() -> None:
    assert all(is_generated(generate_slug(2)) for _ in range(300))


def test_names_of_the_form_are_told() -> None:
    """As the form of the UI offered them."""
    assert all(is_generated(name) for name in ("Rustic-Panda", "Handcrafted-Ox", "Awesome-Ant"))


@pytest.mark.parametrize(
    "name",
    [
        "first try",
        "my-run",
        "gsm8k-tau-2",
        "smoke",
        "Tuesday",
        "lr-2e-4",
        "quick-test",
        "Rustic-Tortoise",
        "-",
    ],
)
def test_names_of_people_are_not(name: str) -> None:
    assert not is_generated(name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("noisy-quokka", "smoke"), ("Sleek-Bee", "smoke"), ("colder teacher", "colder teacher")],
)
def test_a_flow_gets_the_recipes_name_or_keeps_its_own(
    given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"config": DistillConfig(name="smoke"), "model": "teacher"}
    monkeypatch.setattr(run_name, "flow_run", SimpleNamespace(name=given, parameters=parameters))
    assert callable(distill.flow_run_name)
    assert distill.flow_run_name() == expected
    assert callable(evaluate_flow.flow_run_name)
    assert evaluate_flow.flow_run_name() == (expected if expected == given else "smoke-teacher")
