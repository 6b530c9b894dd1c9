"""A real server that is killed while a stage needs it, and stages that end before it does."""

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from server_fixture import Cli
from vllm_fixture import END_S, ENGINE, LONG, START_S, Descendants, generate, is_at_work, wait

from advdistill_core.errors import StageError
from advdistill_core.progress import Event

pytestmark = pytest.mark.real_model

NUM, K = 24, 4


def complete(artifact: Any) -> None:
    rows = artifact.table().to_pylist()
    assert len({(r["prompt_id"], r["sample_id"]) for r in rows}) == len(rows) == NUM * K
    assert {r["finish_reason"] for r in rows} <= {"stop", "length"}


class KillOnce:
    """SIGKILL a process of the server when the first responses are there."""

    def __init__(self, descendants: Descendants, victim: str) -> None:
        self.descendants, self.victim = descendants, victim
        self.killed: list[int] = []

    def __call__(self, event: Event) -> None:
        if event.stage != "generate" or event.done < 8 or self.killed:
            return
        process = self.descendants.engine() if self.victim == "engine" else self.descendants.server()
        assert process is not None
        self.killed.append(process.pid)
        process.kill()
        print(f"killed the {self.victim} after {event.done} of {event.total} responses")


@pytest.mark.parametrize("victim", ["engine", pytest.param("server", marks=pytest.mark.slow)])
def test_a_killed_server_costs_nothing(descendants: Descendants, tmp_path: Path, victim: str) -> None:
    kill = KillOnce(descendants, victim)
    artifact = generate(
        tmp_path, NUM, kill, backend="vllm", k=K, temperature=0.8, concurrency=2, vllm=ENGINE, max_retries=0
    )
    complete(artifact)
    assert kill.killed
    assert descendants.engine() is None
    assert descendants.of_vllm() == {}


@pytest.mark.slow
def test_a_failing_stage_leaves_nothing(descendants: Descendants, tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if event.stage == "generate" and event.done >= 8:
            assert descendants.engine() is not None
            raise StageError("stop here")

    with pytest.raises(StageError, match="stop here"):
        generate(tmp_path, NUM, fail, backend="vllm", k=K, concurrency=2, vllm=ENGINE)
    assert descendants.of_vllm() == {}


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL", "SIGKILL of the stage"])
def test_an_ended_run_leaves_nothing(
    cli: Cli, descendants: Descendants, tmp_path: Path, vllm_python: str, how: str
) -> None:
    options = [o for setting in (*LONG, f"teacher.vllm.python={vllm_python}") for o in ("--set", setting)]
    run = cli.start("run", "smoke", "--root", str(tmp_path), *options)
    try:
        wait(lambda: is_at_work(tmp_path) or run.poll() is not None, "responses", START_S)
        assert run.poll() is None, run.communicate()
        running = set(descendants.of_vllm())
        assert len(running) >= 3, "a leash, a server and an engine"
        if how == "SIGKILL of the stage":
            stage = descendants.leash().parent()
            assert stage is not None
            stage.kill()
        else:
            run.send_signal(getattr(signal, how))
        told = time.monotonic()
        wait(lambda: not running & set(descendants.of_vllm()), "vLLM to be gone", END_S)
        print(f"{how}: vLLM was gone after {time.monotonic() - told:.1f} s")
    except AssertionError:
        for process in psutil.Process().children(recursive=True):  # who is left, and what it waits for
            print(process.pid, process.ppid(), process.status(), process.cpu_times(), process.cmdline()[:6])
        raise
    finally:
        if run.poll() is None:
            run.kill()
        run.communicate()
