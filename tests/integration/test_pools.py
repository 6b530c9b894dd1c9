"""Runs on work pools with real workers: placed, shared, killed, cancelled, retried."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pool_stack import Stack, Worker

from advdistill_core.store import Store
from advdistill_core.store.manifest import Manifest

pytestmark = pytest.mark.server

# Slow enough to be met in the middle on any machine; a shard is 2 prompts of 2 responses.
LONG = ["prompts.num_train=60", "teacher.k=2", "teacher.shard_size=2", "teacher.max_new_tokens=160"]
ROWS_PER_SHARD = 4


def manifests(root: Path, stage: str) -> list[Manifest]:
    store = Store(str(root))
    found = [store.manifest(stage, path.parent.name) for path in root.glob(f"{stage}/*/manifest.json")]
    return [manifest for manifest in found if manifest]


def shards(root: Path) -> list[Path]:
    return list(root.glob("generate/*/work/*.parquet"))


@pytest.fixture
def gpu(stack: Stack) -> Iterator[Worker]:
    """A GPU worker; it and others end with the test."""
    yield stack.worker("gpu", "gpu-0")
    stack.stop_gpu_workers()


def stage_processes(root: Path) -> list[psutil.Process]:
    """Living processes that run a stage for this root."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "advdistill_core.child" in (process.info["cmdline"] or []):
            files = {f.path for f in process.open_files()} if process.is_running() else set()
            if any(path.startswith(str(root)) for path in files):
                found.append(process)
    return found


def test_two_runs_share_a_stage_on_the_pool(stack: Stack, gpu: Worker, tmp_path: Path) -> None:
    """Two runs at once want the same responses: one run on the pool makes them for both."""
    first = stack.trigger("generate/default", tmp_path)
    second = stack.trigger("generate/default", tmp_path)
    assert stack.wait(first)["type"] == "COMPLETED", stack.state(first)
    assert stack.wait(second)["type"] == "COMPLETED", stack.state(second)
    records = [json.loads((tmp_path / "runs" / f"{run}.json").read_text()) for run in (first, second)]
    uris = {record["stages"]["generate"]["uri"] for record in records}
    assert len(uris) == 1
    assert len(manifests(tmp_path, "generate")) == 1
    assert len(stack.children(first) + stack.children(second)) == 1

    parent = first if stack.children(first) else second
    child = stack.children(parent)[0]
    logs = stack.logs(parent)
    assert any(line.startswith(f"{child['name']} | ") for line in logs), logs
    progress = [a for a in stack.artifacts(parent) if a["type"] == "progress"]
    assert any(a["data"] == 100 and "64 of 64 responses" in a["description"] for a in progress)
    assert stack.pool_slots_in_use("gpu") == 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["worker", "machine"])
def test_killed_with_a_second_worker_present(stack: Stack, gpu: Worker, tmp_path: Path, what: str) -> None:
    run, busy, kept = start_and_kill(stack, gpu, tmp_path, what, others=True)
    check_finished(stack, run, tmp_path, busy, kept)


@pytest.mark.slow
def test_killed_alone_then_restarted(stack: Stack, gpu: Worker, tmp_path: Path) -> None:
    run, busy, kept = start_and_kill(stack, gpu, tmp_path, "machine", others=False)
    time.sleep(5)
    stack.worker("gpu", "gpu-0")
    check_finished(stack, run, tmp_path, busy, kept)


def start_and_kill(
    stack: Stack, gpu: Worker, root: Path, what: str, others: bool
) -> tuple[str, list[psutil.Process], int]:
    """Kill the GPU worker, or its machine, in the middle of a generation."""
    run = stack.trigger("generate/default", root, *LONG)
    stack.until(lambda: len(shards(root)) >= 3, 120, "three shards")
    second = stack.worker("gpu", "gpu-1") if others else None
    family = gpu.family()
    gpu.kill() if what == "worker" else gpu.kill_machine()
    kept = len(shards(root))
    assert kept >= 3
    assert not manifests(root, "generate"), "the generation ended before it could be interrupted"
    assert second is None or second.process.poll() is None
    return run, family, kept


def check_finished(stack: Stack, run: str, root: Path, family: list[psutil.Process], kept: int) -> None:
    """Complete, at most one shard redone, no slot held, no process left."""
    assert stack.wait(run, 300)["type"] == "COMPLETED", stack.state(run)
    (manifest,) = manifests(root, "generate")
    assert manifest.rows == 120
    total_shards = manifest.rows // ROWS_PER_SHARD
    if manifest.outcome == "resumed":
        assert manifest.metrics["resumed_responses"] >= kept * ROWS_PER_SHARD
        assert kept < total_shards
    else:
        assert manifest.metrics["resumed_responses"] == 0  # the flow's process outlived its worker
    stack.until(lambda: stack.pool_slots_in_use("gpu") == 0, 30, "the GPU's slot to come back")
    stack.until(
        lambda: not any(p.is_running() for p in family if p.pid), 30, "the killed processes to be gone"
    )


@pytest.mark.slow
def test_a_flow_whose_machine_died_is_marked_and_continues(stack: Stack, gpu: Worker, tmp_path: Path) -> None:
    """Flow and worker are killed: heartbeats stop, the run is marked; Retry finds the GPU's work."""
    (cpu,) = (worker for worker in stack.workers if worker.pool == "cpu")
    run = stack.trigger("generate/default", tmp_path, *LONG)
    stack.until(lambda: len(shards(tmp_path)) >= 2, 120, "two shards")
    cpu.kill_machine()
    stack.workers.remove(cpu)
    began = time.monotonic()
    stack.until(lambda: stack.state(run)["type"] == "CRASHED", 200, "the run to be marked")
    print(f"marked after {time.monotonic() - began:.0f} s")
    stack.worker("cpu", "cpu-1")
    stack.set_state(run, "SCHEDULED", "AwaitingRetry")
    stack.until(lambda: stack.state(run)["type"] == "RUNNING", 60, "the retry")
    assert stack.wait(run, 300)["type"] == "COMPLETED", stack.state(run)
    assert len(stack.children(run)) == 1, "no second stage beside the first"
    (manifest,) = manifests(tmp_path, "generate")
    assert manifest.rows == 120
    assert stack.pool_slots_in_use("gpu") == 0


def test_cancelling_a_run_stops_its_gpu_process(stack: Stack, gpu: Worker, tmp_path: Path) -> None:
    run = stack.trigger("generate/default", tmp_path, *LONG, "teacher.max_new_tokens=400")
    stack.until(lambda: len(shards(tmp_path)) >= 1, 120, "a shard")
    working = [p for p in gpu.family() if "advdistill_core.child" in p.cmdline()]
    assert working
    began = time.monotonic()
    stack.set_state(run, "CANCELLING")
    stack.until(lambda: not any(p.is_running() for p in working), 30, "the GPU process to end")
    print(f"GPU process gone after {time.monotonic() - began:.1f} s")
    assert stack.wait(run, 60)["type"] == "CANCELLED"
    stack.until(
        lambda: all(c["state"]["type"] == "CANCELLED" for c in stack.children(run)), 60, "the child's state"
    )
    record = json.loads((tmp_path / "runs" / f"{run}.json").read_text())
    assert (record["state"], record["ended_in"]) == ("cancelled", "generate")
    assert stack.pool_slots_in_use("gpu") == 0
