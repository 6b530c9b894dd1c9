"""Re-distillation from a file that grows: what is new, the gate, approval, schedule, rollback."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pool_stack import FINAL, Stack, ask

from advdistill_core.store import Store
from flows import promotion

pytestmark = [pytest.mark.server, pytest.mark.slow]

HELDOUT, K = 6, 2


class Line:
    """A growing file of sums, and re-distillations of it on the CPU worker."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.root, self.path = stack, folder / "store", folder / "questions.jsonl"
        pairs = [(a, b) for a in range(2, 40) for b in range(2, 40)]
        self.sums = random.Random(0).sample(pairs, 200)
        self.used = 0

    def grow(self, count: int) -> None:
        chosen = self.sums[self.used : self.used + count]
        self.used += count
        with open(self.path, "a") as file:
            for a, b in chosen:
                file.write(json.dumps({"question": f"{a} + {b}", "answer": str(a + b)}) + "\n")

    def start(self, **policy: Any) -> str:
        overrides = ["prompts.source=file", f"prompts.path={self.path}", "prompts.families=[]"]
        overrides += [f"prompts.num_heldout={HELDOUT}", f"teacher.k={K}"]
        run = self.stack.trigger("redistill/nightly", self.root, *overrides, placement="local", policy=policy)
        return str(run)

    def decide(self, **policy: Any) -> dict[str, Any]:
        """Run to the end; returns the run's record."""
        run = self.start(**policy)
        assert self.stack.wait(run, 300)["type"] == "COMPLETED", self.stack.state(run)
        return self.record(run)

    def record(self, run: str) -> dict[str, Any]:
        return dict(json.loads((self.root / "runs" / f"{run}.json").read_text()))

    def student(self) -> str | None:
        found = promotion.read_line(Store(str(self.root)), "default").champion
        return found.student.content_hash if found else None


def test_only_what_is_new_and_only_what_is_better(stack: Stack, tmp_path: Path) -> None:
    line = Line(stack, tmp_path)
    line.grow(20)
    first = line.decide(margin=-1)
    assert first["metrics"]["decision"] == "promoted"
    assert first["stages"]["generate"]["rows"] == (20 - HELDOUT) * K
    champion = line.student()
    assert champion

    began = time.monotonic()
    again = line.decide(margin=-1)
    assert again["metrics"]["decision"] == "nothing-new"
    assert set(again["stages"]) == {"load", "select"}
    assert again["seconds"] < 10
    print(f"nothing new: {again['seconds']:.1f} s, {time.monotonic() - began:.1f} s with its start")

    line.grow(8)
    refused = line.decide(margin=0.9)
    assert refused["metrics"]["decision"] == "refused"
    assert refused["stages"]["generate"]["rows"] == 8 * K, "the new questions only, held-out ones too"
    assert line.student() == champion
    assert line.decide(margin=0.9)["metrics"]["decision"] == "nothing-new", "it is not tried twice"

    line.grow(4)
    better = line.decide(margin=-1)
    assert better["metrics"]["decision"] == "promoted"
    assert better["stages"]["generate"]["rows"] == (8 + 4) * K, "those of the refused student count as new"
    assert line.student() not in (champion, None)

    done = stack.cli("rollback", "default", "--root", str(line.root), "--json")
    assert done.returncode == 0, done.stderr
    assert line.student() == champion
    after = line.decide(margin=-1)
    assert after["metrics"]["decision"] == "nothing-new", "what was rolled back does not come again"
    assert line.student() == champion


def test_a_person_is_asked_and_the_schedule_fires(stack: Stack, tmp_path: Path) -> None:
    line = Line(stack, tmp_path)
    line.grow(12)
    run = line.start(margin=-1, approval=True)
    stack.until(lambda: stack.state(run)["type"] in ("PAUSED", "FAILED"), 240, "the pause")
    assert stack.state(run)["type"] == "PAUSED", stack.state(run)
    assert line.student() is None
    bad = ask("POST", f"{stack.api}/flow_runs/{run}/resume", json={"run_input": {"promote": "perhaps"}})
    assert bad["status"] == "REJECT"
    assert stack.state(run)["type"] == "PAUSED"
    good = {"run_input": {"promote": True, "reviewer": "Ada"}}
    ask("POST", f"{stack.api}/flow_runs/{run}/resume", json=good)
    assert stack.wait(run)["type"] == "COMPLETED", stack.state(run)
    found = promotion.read_line(Store(str(line.root)), "default").champion
    assert found
    assert found.by == "Ada"

    # The same by schedule, every few seconds: nothing is new any more.
    deployment = ask("GET", f"{stack.api}/deployments/name/redistill/nightly")["id"]
    parameters = ask("GET", f"{stack.api}/flow_runs/{run}")["parameters"]
    schedule = {"schedule": {"interval": 15.0}, "active": True, "parameters": parameters, "slug": "often"}
    url = f"{stack.api}/deployments/{deployment}/schedules"
    made = ask("POST", url, json=[schedule])[0]["id"]
    try:

        def fired() -> list[dict[str, Any]]:
            body = {
                "flow_runs": {
                    "deployment_id": {"any_": [deployment]},
                    "tags": {"all_": ["auto-scheduled"]},
                    "state": {"type": {"any_": ["COMPLETED"]}},
                }
            }
            return list(ask("POST", f"{stack.api}/flow_runs/filter", json=body))

        stack.until(lambda: len(fired()) >= 2, 120, "two scheduled runs")
        assert {line.record(r["id"])["metrics"]["decision"] for r in fired()} == {"nothing-new"}
    finally:
        ask("DELETE", f"{url}/{made}")
    kinds = {event["event"] for event in events(stack)}
    assert {"advdistill.student.promoted", "advdistill.student.nothing-new"} <= kinds


@pytest.mark.parametrize(("overlap", "second_ends"), [("wait", "COMPLETED"), ("cancel", "CANCELLED")])
def test_one_at_a_time(stack: Stack, tmp_path: Path, overlap: str, second_ends: str) -> None:
    """The later one waits or is cancelled, as deployed; one that waits for approval holds nobody up."""
    line = Line(stack, tmp_path)
    line.grow(12)
    redeploy(stack, overlap)
    try:
        first = line.start(margin=-1)
        stack.until(lambda: stack.state(first)["type"] in ("RUNNING", *FINAL), 120, "the first to run")
        second = line.start(margin=-1)
        if overlap == "wait":
            stack.until(lambda: stack.state(second)["name"] == "AwaitingConcurrencySlot", 60, "the wait")
        else:
            stack.until(lambda: stack.state(second)["type"] == "CANCELLED", 60, "the second to be cancelled")
        assert stack.state(first)["type"] == "RUNNING", "they met"
        assert stack.wait(first)["type"] == "COMPLETED", stack.state(first)
        assert stack.wait(second)["type"] == second_ends, stack.state(second)
    finally:
        redeploy(stack, "wait")


def redeploy(stack: Stack, overlap: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "deploy", "--overlap", overlap],
        env={**stack.cli.environment(), "PREFECT_API_URL": stack.api},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def events(stack: Stack) -> list[dict[str, Any]]:
    body = {"filter": {"event": {"prefix": ["advdistill."]}}, "limit": 50}
    return list(ask("POST", f"{stack.api}/events/filter", json=body)["events"])
