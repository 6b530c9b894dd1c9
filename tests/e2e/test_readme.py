"""README's blocks for own questions, verifier and teacher, run as they stand.

Only the programs they call are stood in for: `advdistill` adds the tiny model, and the
endpoint's address; `pip` installs into a folder of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from server_fixture import Cli

README = Path(__file__).resolve().parents[2] / "README.md"
KEY = "sk-planted-58d1c0a7"
_TINY = (
    "teacher.model=tiny-random-llama student.model=tiny-random-llama weighting.all_wrong=uniform "
    "teacher.max_new_tokens=8 evaluation.max_new_tokens=8"
)


def block(title: str) -> str:
    """The shell block of a section, which has to be short."""
    section = README.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found, title
    assert len(found[1].splitlines()) <= 20
    return found[1]


@dataclass
class Endpoint:
    """A teacher that answers every question with 5 and notes the keys that it was sent."""

    url: str = ""
    keys: set[str] = field(default_factory=set)
    questions: list[str] = field(default_factory=list)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    known = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": [{"id": "my-model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known.keys.add(self.headers.get("Authorization", ""))
            known.questions.append(body["messages"][-1]["content"])
            choice = {"message": {"content": "It is \\boxed{5}."}, "finish_reason": "stop"}
            self._send({"choices": [choice] * body.get("n", 1), "usage": {"completion_tokens": 6}})

        def _send(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield known
    server.shutdown()
    server.server_close()


def stand_in(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def run(script: str, here: Path, environment: dict[str, str]) -> str:
    """Run a block in a folder; the stand-ins come first on the PATH."""
    path = f"{here / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=here,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def with_tiny_models(here: Path, *overrides: str) -> None:
    options = " ".join(f"--set {text}" for text in (*_TINY.split(), *overrides))
    stand_in(here / "bin", "advdistill", f'exec {sys.executable} -m flows.cli "$@" {options} --json')


def planted(folder: Path) -> list[str]:
    """Files below a folder that hold the key."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and KEY.encode() in path.read_bytes()
    ]


@pytest.mark.server
def test_own_questions_and_own_teacher(cli: Cli, tmp_path: Path, endpoint: Endpoint) -> None:
    with_tiny_models(tmp_path)
    run(block("Your own questions"), tmp_path, cli.environment())
    store = tmp_path / "advdistill-store"
    reports = set(store.glob("publish/*/report.html"))
    assert len(reports) == 1

    with_tiny_models(tmp_path, "teacher.model=my-model", f"teacher.base_url={endpoint.url}")
    script = block("Your own teacher").replace("TEACHER_KEY=...", f"TEACHER_KEY={KEY}")
    assert KEY in script
    said = run(script, tmp_path, cli.environment())
    assert len(set(store.glob("publish/*/report.html")) - reports) == 1
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert {question[:13] for question in endpoint.questions} == {"What is 9 - 2", "What is 4 + 4"}

    # The key went to the endpoint and nowhere else: artifacts, records, report, Prefect's
    # database and logs, what was printed.
    assert planted(store) == []
    assert planted(cli.home) == []
    assert KEY not in said
    assert any((cli.home / "prefect").glob("prefect.db*"))


def test_own_verifier(tmp_path: Path) -> None:
    site = tmp_path / "site"
    stand_in(tmp_path / "bin", "pip", f'exec {sys.executable} {tmp_path / "install.py"} "$@"')
    stand_in(tmp_path / "bin", "advdistill", f'exec {sys.executable} -m flows.cli "$@"')
    here = Path(__file__).resolve().parent
    (tmp_path / "install.py").write_text(
        f"import sys\nsys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        f"from test_readme import install\ninstall({str(site)!r})\n"
    )
    run(block("Your own verifier"), tmp_path, {**os.environ, "PYTHONPATH": str(site)})
    graded = json.loads((tmp_path / "graded.jsonl").read_text())
    assert (graded["verdict"], graded["extracted"]) == ("correct", "level")

    (tmp_path / "answers.jsonl").write_text('{"gold": "6", "prediction": "level"}\n')
    command = "advdistill verify answers.jsonl --out graded.jsonl --task palindrome"
    run(command, tmp_path, {**os.environ, "PYTHONPATH": str(site)})
    assert json.loads((tmp_path / "graded.jsonl").read_text())["verdict"] == "wrong"


def install(site: str) -> None:
    """What `pip install .` does with the block's package, without a network."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    info = Path(site) / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module in Path().glob("*.py"):
        if module.name != "install.py":
            shutil.copy(module, site)


@pytest.mark.parametrize(
    "path",
    sorted(
        set(
            re.findall(
                r"`((?:tests|flows|infra|advdistill_core)/[\w./-]+)`", README.read_text(encoding="utf-8")
            )
        )
    ),
)
def test_files_that_are_named_exist(path: str) -> None:
    assert (README.parent / path).exists()
