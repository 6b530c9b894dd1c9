"""`advdistill up`: everything it started ends with it, and the next one continues."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from pool_stack import Stack
from server_fixture import Cli

from advdistill_core.store import Store
from flows.server import LocalServer

pytestmark = [pytest.mark.server, pytest.mark.slow]

LONG = ["prompts.num_train=60", "teacher.k=2", "teacher.shard_size=2", "teacher.max_new_tokens=160"]


def up(cli: Cli, root: Path) -> "subprocess.Popen[str]":
    """Start `up` and wait until it is ready."""
    process = cli.start("up", "--root", str(root))
    assert process.stdout
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            return process
    raise AssertionError(process.communicate()[1][-3000:])


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_ended_in_the_middle_and_started_again(tmp_path: Path, number: signal.Signals) -> None:
    cli, root = Cli(tmp_path / "home"), tmp_path / "store"
    cli.home.mkdir()
    first = up(cli, root)
    second = cli("up", "--root", str(root))
    assert second.returncode == 2
    assert "without another `up`" in second.stderr

    stack = Stack(cli, LocalServer(cli.home).start())
    run = stack.trigger("generate/default", root, *LONG)
    stack.until(lambda: len(list(root.glob("generate/*/work/*.parquet"))) >= 2, 200, "two shards")
    started = family(first)
    assert len(started) >= 6, "up, a server, two workers, two flows, a stage"
    first.send_signal(number)
    first.communicate(timeout=60)
    assert first.returncode in (0, -number)
    stack.until(lambda: not any(p.is_running() for p in started), 30, "all processes to be gone")
    assert not list(root.glob("generate/*/manifest.json"))

    again = up(cli, root)
    try:
        stack = Stack(cli, LocalServer(cli.home).start())
        assert stack.wait(run, 300)["type"] == "COMPLETED", stack.state(run)
        (path,) = root.glob("generate/*/manifest.json")
        manifest = Store(str(root)).manifest("generate", path.parent.name)
        assert manifest
        assert manifest.outcome == "resumed"
        assert manifest.metrics["resumed_responses"] >= 8
    finally:
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=60)
