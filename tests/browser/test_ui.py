"""The shipped Prefect UI in a real browser: form, bad value, run, progress, artifacts, retry.

Screenshots go to the folder named by ADVDISTILL_SCREENSHOTS, if it is set.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_fixture import Cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from pool_stack import Stack, ask, damage, running_stack

from advdistill_core.models import tiny

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
WAIT_MS = 120_000


@pytest.fixture(scope="module")
def stack(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(cli, tmp_path_factory.mktemp("deployed")) as ready:
        ready.worker("gpu", "gpu-0")
        yield ready


@pytest.fixture
def page() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_context(viewport={"width": 1300, "height": 1000}).new_page()
        tab.set_default_timeout(WAIT_MS)
        yield tab
        browser.close()


def shoot(page: Any, name: str) -> None:
    folder = os.environ.get("ADVDISTILL_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(500)
        page.screenshot(path=f"{folder}/{name}.png")


def submit(page: Any) -> None:
    """Press Submit, again if need be: a press while edits are being checked is swallowed."""
    for _ in range(4):
        page.get_by_role("button", name="Submit").press("Enter")  # a message may lie over it
        page.wait_for_timeout(8000)
        if "tab=Runs" in page.url:
            return
    shoot(page, "3-not-accepted")
    raise AssertionError(f"the form was not accepted: {page.url}")


def newest_run(stack: Stack, deployment: str) -> str:
    body = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_DESC"}
    stack.until(lambda: ask("POST", f"{stack.api}/flow_runs/filter", json=body), 60, "the run to be made")
    return str(ask("POST", f"{stack.api}/flow_runs/filter", json=body)[0]["id"])


def watch_progress(stack: Stack, page: Any, run: str) -> None:
    """A progress in the UI that grows while a stage runs, and a stage table that says so."""

    def running() -> list[dict[str, Any]]:
        found = [a for a in stack.artifacts(run) if a["type"] == "progress" and 0 < a["data"] < 100]
        return [a for a in found if a["description"].startswith("generate")]

    stack.until(running, 300, "a stage that is under way")
    made = running()[-1]
    page.goto(f"{stack.api.removesuffix('/api')}/v2/artifacts/artifact/{made['id']}")
    page.get_by_text(made["description"].split(":")[0]).first.wait_for()
    shoot(page, "4-progress")
    stack.until(
        lambda: any(a["id"] == made["id"] and a["data"] > made["data"] for a in stack.artifacts(run)),
        300,
        "the progress to grow",
    )
    (table,) = (a for a in stack.artifacts(run) if a["key"] == "stages")
    assert "running" in table["data"]
    page.goto(f"{stack.api.removesuffix('/api')}/v2/runs/flow-run/{run}?tab=Artifacts")


def test_fill_the_form_run_and_look_at_the_result(stack: Stack, page: Any, tmp_path: Path) -> None:
    ui = stack.api.removesuffix("/api")
    deployment = ask("GET", f"{stack.api}/deployments/name/distill/smoke")["id"]
    page.goto(f"{ui}/v2/deployments/deployment/{deployment}")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    k = page.get_by_label("Responses per prompt")
    k.wait_for()
    assert k.input_value() == "4", "the recipe fills the form"

    k.fill("0")
    page.get_by_role("button", name="Submit").click()
    assert "greater than or equal to 1" in k.evaluate("field => field.validationMessage")
    shoot(page, "1-bad-number")
    k.fill("2")
    names = page.get_by_label("Name")
    name = next(names.nth(i) for i in range(names.count()) if names.nth(i).input_value() == "smoke")
    name.fill("not a name!")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("does not match").first.wait_for()
    shoot(page, "2-bad-name")

    name.fill("from-the-form")
    page.get_by_label("Temperature").first.fill("0.85")
    page.get_by_label("Training prompts").fill("48")
    page.get_by_label("Max new tokens").first.fill("400")  # long enough to be watched
    page.get_by_label("Root").fill(str(tmp_path))
    page.wait_for_timeout(1000)
    submit(page)
    run = newest_run(stack, deployment)
    config = ask("GET", f"{stack.api}/flow_runs/{run}")["parameters"]["config"]
    assert (config["name"], config["teacher"]["k"], config["teacher"]["temperature"]) == (
        "from-the-form",
        2,
        0.85,
    )

    watch_progress(stack, page, run)  # at once: this generation is over in seconds
    page.get_by_text("stages", exact=True).first.wait_for()
    assert stack.wait(run, 900)["type"] == "COMPLETED", stack.state(run)
    page.reload()
    page.get_by_role("tab", name="Artifacts").click()
    ids = {a["key"]: a["id"] for a in stack.artifacts(run)}
    for key, text in (
        ("stages", "evaluate before"),
        ("result", "student after, right answers"),
        ("report", "report.html"),
    ):
        page.get_by_text(key, exact=True).first.wait_for()
        assert len([a for a in stack.artifacts(run) if a["key"] == key]) == 1
        look = page.context.new_page()
        look.goto(f"{ui}/v2/artifacts/artifact/{ids[key]}")
        look.get_by_text(text).first.wait_for(timeout=WAIT_MS)
        shoot(look, f"6-{key}")
        look.close()
    shoot(page, "5-artifacts")
    for key in ("plot-accuracy", "plot-loss"):
        page.goto(f"{ui}/v2/artifacts/artifact/{ids[key]}")
        image = page.locator("img[src^='data:image/svg']").first
        image.wait_for()
        assert image.evaluate("image => image.complete && image.naturalWidth") >= 300, "it is drawn"
        shoot(page, f"7-{key}")
    assert (tmp_path / "runs" / f"{run}.json").exists()


def test_retry_a_run_that_failed_in_training(stack: Stack, page: Any, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    folder.mkdir()
    tiny.build(folder)
    weights = folder / "model.safetensors"
    good = damage(weights)
    root = tmp_path / "store"
    run = stack.trigger("train/default", root, f"student.model={folder}", placement="local")
    assert stack.wait(run)["type"] == "FAILED"
    weights.write_bytes(good)
    stack.settle()

    ui = stack.api.removesuffix("/api")
    page.goto(f"{ui}/v2/runs/flow-run/{run}")
    page.get_by_text("Failed").first.wait_for()
    shoot(page, "8-failed")
    buttons = page.get_by_role("button")
    buttons.filter(has=page.locator("svg.lucide-ellipsis-vertical, svg.lucide-more-vertical")).first.click()
    page.get_by_role("menuitem", name="Retry").click()
    page.get_by_role("button", name="Retry").last.click()
    stack.until(lambda: stack.state(run)["type"] != "FAILED", 60, "the retry")
    assert stack.wait(run)["type"] == "COMPLETED", stack.state(run)
    page.reload()
    page.get_by_text("Completed").first.wait_for()
    page.get_by_role("tab", name="Task Runs").click()
    page.get_by_text("Cached").first.wait_for()
    shoot(page, "9-retried")
