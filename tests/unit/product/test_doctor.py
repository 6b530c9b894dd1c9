"""`advdistill doctor`: every line says how it is and what to do; secrets stay secret."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows import catalog, cli
from flows.commands import doctor
from flows.commands.doctor import Finding, examine

KEY = "sk-planted-7391"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and a folder of its own, no server, no Hub."""
    for name in ("PREFECT_API_URL", "ADVDISTILL_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ADVDISTILL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)


def found(*overrides: str, recipe: str = "smoke") -> dict[str, Finding]:
    return {one.name: one for one in examine(catalog.load(recipe, list(overrides)), bool(recipe))}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["advdistill", "doctor", *arguments])
    return cli.guarded(cli.app)


@contextmanager
def answering(answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """A server that answers by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, None))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_machine_that_can_run_the_smoke_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, "smoke", "--json") == 0
    listed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["findings"]
    names = {one["name"] for one in listed}
    assert {"Python", "packages", "GPU", "vLLM", "storage.root", "home", "Prefect server"} <= names
    assert {"teacher", "student", "questions"} <= names
    assert {one["state"] for one in listed} <= {"ok", "warning"}
    assert not list(tmp_path.iterdir())  # it looked and left nothing


def test_a_problem_exits_with_1_and_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "smoke", "--set", "student.model=org/model") == 1
    assert "HF_TOKEN" in " ".join(capsys.readouterr().out.split())
    one = found("student.model=org/model")["student"]
    assert (one.state, "not reachable" in one.text) == ("problem", True)


def test_the_key_is_looked_for_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering({"/v1/models": (200, {"data": [{"id": "big"}]})}) as url:
        overrides = ["teacher.backend=openai", "teacher.model=big", f"teacher.base_url={url}/v1"]
        overrides.append("teacher.api_key_env=PLANTED")
        assert found(*overrides)["teacher key"].state == "problem"
        monkeypatch.setenv("PLANTED", KEY)
        lines = found(*overrides)
        assert (lines["teacher key"].state, lines["teacher"].state) == ("ok", "ok")
        options = [part for text in overrides for part in ("--set", text)]
        for form in ([], ["--json"]):
            assert command(monkeypatch, "smoke", *options, *form) == 0
            said = capsys.readouterr()
            assert KEY not in said.out + said.err


def test_pools_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [{"name": "cpu-0", "status": "ONLINE"}, {"name": "old", "status": "OFFLINE"}]
    answers = {
        "/api/health": (200, True),
        "/api/work_pools/cpu/workers/filter": (200, workers),
        "/api/work_pools/gpu/workers/filter": (200, []),
    }
    with answering(answers) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        local, pools = found(), found("placement=pools")
        cpus = [f"{section}.device=cpu" for section in ("teacher", "student", "evaluation")]
        without_gpu = found("placement=pools", *cpus)
    assert (local["pool cpu"].text, local["pool gpu"].state) == ("1 worker(s): cpu-0", "ok")
    assert (pools["pool cpu"].state, pools["pool gpu"].state) == ("ok", "problem")
    assert "prefect worker start" in pools["pool gpu"].remedy
    assert without_gpu["pool gpu"].state == "ok", "nothing of it runs there"


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert found()["Prefect server"].state == "problem"


@pytest.mark.parametrize(
    ("gpus", "cuda", "state"),
    [(["H200"], "12.8", "ok"), (["H200"], None, "warning"), ([], None, "problem")],
)
def test_gpu(monkeypatch: pytest.MonkeyPatch, gpus: list[str], cuda: str | None, state: str) -> None:
    monkeypatch.setattr(doctor, "_gpus", lambda: gpus)
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: cuda)
    assert found("student.device=cuda")["GPU"].state == state


def test_the_disk_must_hold_the_run() -> None:
    assert found("prompts.num_train=1000000000")["storage.root"].state == "problem"


def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", "no-such-package>=1", "pyyaml>=5"])
    one = found()["packages"]
    assert one.state == "problem"
    assert "torch" in one.text
    assert "no-such-package is missing" in one.text
    assert "pyyaml" not in one.text


def test_questions_are_read() -> None:
    one = found("prompts={source: file, path: gone.jsonl}")["prompts.path"]
    assert (one.state, "gone.jsonl" in one.text) == ("problem", True)


def test_the_table_shows_a_long_path_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "a-folder-with-a-long-name" / "and-another-one-below-it-that-is-longer-still"
    monkeypatch.setenv("COLUMNS", "80")
    shown = [Finding("storage.root", "ok", f"{root}: can be written"), Finding("GPU", "ok", "[none]")]
    monkeypatch.setattr(doctor, "examine", lambda *_: shown)
    assert command(monkeypatch) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    found = "".join(row[3].strip() for row in rows)
    assert str(root) in found
    assert "[none]" in found
