"""Artifacts on S3: machines with nothing in common but the bucket see each other's work.

A machine is an environment with local folders of its own (home, Prefect's home, scratch).
"""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from pool_stack import Stack
from s3_server import BUCKET, running_s3
from server_fixture import Cli

from advdistill_core.store import Store
from flows.commands import gc
from flows.server import LocalServer

pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with running_s3() as environment:
        yield environment


@dataclass
class Machine(Cli):
    """Runs the command line with local folders of its own and the bucket of all."""

    shared: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        for name in ("tmp", "prefect"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        own = {"TMPDIR": str(self.home / "tmp"), "PREFECT_HOME": str(self.home / "prefect")}
        return {**super().environment(), **own, **self.shared}

    def python(self, script: str, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.Popen(command, env=self.environment(), stdout=subprocess.PIPE, text=True)


def test_what_one_machine_commits_another_finds(s3: dict[str, str], tmp_path: Path) -> None:
    root = f"s3://{BUCKET}/commits"
    write = (
        "import sys; from advdistill_core.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "assert store.find('train', 'f') is None\n"
        "out = store.begin('train', '1', 'f', None)\n"
        "out.write_file('model.safetensors', b'weights'); print(out.commit({}, {}).content_hash)\n"
    )
    read = (
        "import sys; from advdistill_core.store import Store\n"
        "store = Store(sys.argv[1]); ref = store.find('train', 'f'); print(ref.content_hash)\n"
        "assert (store.open(ref).local_path() / 'model.safetensors').read_bytes() == b'weights'\n"
        "store.files.write('train/f/model.safetensors', b'altered')\n"
        "assert store.find('train', 'f') is None, 'as long, other bytes'\n"
    )
    here, there = Machine(tmp_path / "a", s3), Machine(tmp_path / "b", s3)
    hashes = []
    for machine, script in ((here, write), (there, read)):
        process = machine.python(script, root)
        hashes.append(process.communicate(timeout=60)[0])
        assert process.returncode == 0
    assert hashes[0] == hashes[1] != ""


def test_two_machines_claim_one_artifact(s3: dict[str, str], tmp_path: Path) -> None:
    """One waits for the other; when the holder is killed, its claim lapses."""
    root = f"s3://{BUCKET}/claims"
    hold = (
        "import sys, time; from advdistill_core.store.files import Files\n"
        "from advdistill_core.store.claims import claim\n"
        "with claim(Files(sys.argv[1]), 'a', lease_s=2):\n"
        "    print('mine', flush=True); time.sleep(float(sys.argv[2]))\n"
    )
    first = Machine(tmp_path / "a", s3).python(hold, root, "600")
    assert first.stdout
    assert first.stdout.readline() == "mine\n"
    second = Machine(tmp_path / "b", s3).python(hold, root, "0")
    time.sleep(8)  # four leases, all of them renewed
    assert second.poll() is None, "it waits for a living holder"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=30)[0] == "mine\n"
    assert second.returncode == 0


def test_gc_keeps_pins_and_what_is_being_made(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    root = f"s3://{BUCKET}/gc"
    store = Store(root)
    for letter in "abc":
        out = store.begin("load", "1", letter * 32, None)
        out.write_file("x", b"abc")
        out.commit({}, {})
    store.begin("load", "1", "d" * 32, None).write_shard("k", pa.table({"a": [1]}))
    store.files.write("pins.txt", b"load/" + b"a" * 32)
    with store.lock("load", "b" * 32):
        found = gc.find_garbage(root, min_age_h=0)
        assert [(item.name[:6], item.why) for item in found] == [
            ("load/c", "nothing refers to it"),
            ("load/d", "unfinished"),
        ]
    gc.remove(root, found)
    assert [item.name[:6] for item in gc.find_garbage(root, min_age_h=0)] == ["load/b"]
    assert store.find("load", "a" * 32)


@pytest.mark.server
@pytest.mark.slow
def test_two_machines_distil_at_once(cli: Cli, s3: dict[str, str], tmp_path: Path) -> None:
    """Each artifact is made once, by one of the two; a third machine finds all of them."""
    api = {"PREFECT_API_URL": LocalServer(cli.home).start()}
    machines = [Machine(tmp_path / name, {**s3, **api}) for name in "abc"]
    arguments = ("run", "smoke", "--root", f"s3://{BUCKET}/runs", "--json")
    running = [machine.start(*arguments) for machine in machines[:2]]
    ended = [process.communicate(timeout=500) for process in running]
    assert [process.returncode for process in running] == [0, 0], [err[-2000:] for _, err in ended]
    outcomes: dict[str, list[str]] = {}
    for out, _ in ended:
        for stage in json.loads(out.strip().splitlines()[-1])["stages"].values():
            outcomes.setdefault(stage["uri"], []).append(stage["outcome"])
    assert len(outcomes) >= 8
    for uri, found in outcomes.items():
        assert uri.startswith(f"s3://{BUCKET}/runs/")
        assert Counter(found) == {"ran": 1, "cached": 1}, uri
    third = machines[2].json(*arguments[:-1])
    assert {stage["outcome"] for stage in third["stages"].values()} == {"cached"}


@pytest.mark.server
@pytest.mark.slow
def test_pools_whose_workers_share_only_the_bucket(
    cli: Cli, stack: Stack, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow's worker on one machine, the GPU's on another: each reads what the other wrote."""
    stack.stop()
    for pool in ("cpu", "gpu"):
        machine = Machine(tmp_path / pool, s3)
        monkeypatch.setattr(stack, "cli", machine)
        stack.worker(pool, f"{pool}-s3")
    monkeypatch.undo()
    run = stack.trigger("distill/smoke", f"s3://{BUCKET}/pools")  # type: ignore[arg-type]
    assert stack.wait(run, 400)["type"] == "COMPLETED", stack.state(run)
    assert len(stack.children(run)) == 4, "generate, train and both evaluations ran on the GPU pool"
    script = "import sys; from flows.run_record import read_runs; print(read_runs(sys.argv[1])[0].json())"
    out, _ = Machine(tmp_path / "look", s3).python(script, f"s3://{BUCKET}/pools").communicate(timeout=60)
    stages = json.loads(out)["stages"]
    assert {stage["outcome"] for stage in stages.values()} == {"ran"}
    assert len(stages) >= 8
