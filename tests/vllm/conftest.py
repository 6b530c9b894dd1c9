"""Real vLLM on CPU, from the environment that `make vllm-env` makes; required in CI."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from vllm_fixture import END_S, ENGINE, MODEL, Descendants, Endpoint, wait

from advdistill_core.config import TeacherConfig
from advdistill_core.models.sources import resolve
from advdistill_core.processes import end_group
from advdistill_core.teachers import vllm_command
from advdistill_core.teachers.vllm_server import Server, _free_port

FOLDER = Path(__file__).resolve().parents[2] / ".venv-vllm"


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter of an environment with vLLM."""
    python = os.environ.get(vllm_command.PYTHON) or str(FOLDER / "bin" / "python")
    if not Path(python).is_file():
        message = f"no vLLM environment at {python}: run `make vllm-env`"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return python


@pytest.fixture(autouse=True)
def environment(vllm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vllm_command.PYTHON, vllm_python)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def vllm_server(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A vLLM server as a user of the openai backend has it."""
    config = TeacherConfig.model_validate(
        {"backend": "vllm", "model": MODEL, "vllm": {"python": vllm_python, **ENGINE}}
    )
    build = vllm_command.find(config)
    folder = tmp_path_factory.mktemp("vllm-server")
    server = Server(lambda port: vllm_command.arguments(config, build, port), folder, 900, 0)
    server.start()
    yield Endpoint(server.base_url, MODEL, server.key)
    server.close()


@pytest.fixture(scope="module")
def transformers_server(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A server of another kind: `transformers serve`, without several samples per request."""
    folder, port = tmp_path_factory.mktemp("transformers-server"), _free_port()
    location, log = sampling_model(folder / "model"), folder / "log"
    command = [str(Path(vllm_python).with_name("transformers")), "serve", location, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "advdistill_core.leash", str(os.getpid()), "5", *command],
            stdout=file,
            stderr=file,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    try:
        wait(lambda: answers(f"http://127.0.0.1:{port}/health", process, log), "transformers serve", 300)
        yield Endpoint(f"http://127.0.0.1:{port}/v1", location)
    finally:
        end_group(process, 20)


def sampling_model(folder: Path) -> str:
    """The model in a folder that says to sample: this server is greedy at any temperature else."""
    folder.mkdir()
    for file in Path(resolve(MODEL).location).iterdir():
        (folder / file.name).symlink_to(file)
    settings = folder / "generation_config.json"
    document = {**json.loads(settings.read_text()), "do_sample": True, "top_k": 0}
    settings.unlink()
    settings.write_text(json.dumps(document))
    return str(folder)


def answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def descendants() -> Iterator[Descendants]:
    """Every process that the test starts, however deep, is noted; none of vLLM's may stay."""
    watch = Descendants()
    watch.start()
    yield watch
    watch.stop()
    deadline = time.monotonic() + END_S
    while (left := watch.of_vllm()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, 9)
    assert not left
