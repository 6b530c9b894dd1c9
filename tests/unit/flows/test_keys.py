"""A teacher's key from a Secret block of a real Prefect server."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from server_fixture import Cli

from advdistill_core.config import DistillConfig, TeacherConfig
from flows import gpu_stage, keys
from flows.server import LocalServer

KEY = "sk-from-a-block-0123456789"
SAVE = "import sys; from prefect.blocks.system import Secret; Secret(value=sys.argv[2]).save(sys.argv[1])"


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An endpoint that wants the key; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(b'{"data": [{"id": "m"}]}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.answer(b'{"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}')

        def answer(self, data: bytes) -> None:
            self.send_response(200 if self.headers["authorization"] == f"Bearer {KEY}" else 401)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.mark.server
def test_a_key_comes_from_a_secret_block(cli: Cli, endpoint: str, tmp_path: Path) -> None:
    command = ["estimate", "smoke", "--prompts", "2"]
    for setting in ("backend=openai", "model=m", f"base_url={endpoint}", "api_key_env=MY_TEACHER_KEY"):
        command += ["--set", f"teacher.{setting}"]
    refused = cli(*command)
    assert refused.returncode == 2
    assert "MY_TEACHER_KEY, which is not set" in refused.stderr
    assert "my-teacher-key" in refused.stderr
    url = {"PREFECT_API_URL": LocalServer(cli.home).address()}
    save = [sys.executable, "-c", SAVE, "my-teacher-key", KEY]
    subprocess.run(save, check=True, env={**cli.environment(), **url})
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr


def test_a_variable_goes_before_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # nothing listens there
    monkeypatch.setenv("MY_TEACHER_KEY", "from the environment")
    config = TeacherConfig(
        backend="openai", model="m", base_url="http://host/v1", api_key_env="MY_TEACHER_KEY"
    )
    with monkeypatch.context() as patched:
        patched.setattr(keys, "_server", lambda: pytest.fail("the server is asked"))
        keys.fetch(config)
    monkeypatch.delenv("MY_TEACHER_KEY")
    keys.fetch(config)  # a server that does not answer is no error
    assert keys.block_name("MY_TEACHER_KEY") == "my-teacher-key"


def test_a_stage_on_a_pool_gets_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TeacherConfig] = []

    def run(*arguments: object) -> None:
        assert asked, "the key is fetched first"
        raise gpu_stage.AdvDistillError("stop here")

    monkeypatch.setattr(gpu_stage, "end_with_owner", lambda: None)
    monkeypatch.setattr(gpu_stage.keys, "fetch", asked.append)
    monkeypatch.setattr(gpu_stage, "run_in_child", run)
    monkeypatch.setattr(gpu_stage, "Reporter", lambda stage: None)
    config = DistillConfig()
    state = gpu_stage.gpu_stage.fn("generate", config, {}, {})
    assert state.message == "stop here"
    assert asked == [config.teacher]
