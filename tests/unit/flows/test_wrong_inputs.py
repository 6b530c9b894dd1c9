"""Wrong inputs of every kind: one line that says what to do, exit code 2, nothing written.

The command line runs in this process, through the entry point that the installed command
calls; `test_bad_input.py` runs some as processes.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from wrong_input_cases import ALL, FORBIDDEN, Wrong, command, setting
from wrong_input_fixture import GOOD, make_grading_files, make_world, wrong_endpoint
from wrong_input_fixture import model as make_model

from flows import cli

#: What, what it got, what was expected, what to do.
_FORM = re.compile(r"advdistill: .+: got .*, expected .+?[.] \S.+")
_NOBODY = 65534


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("world")
    make_world(here)
    return here


@pytest.fixture(scope="module")
def failing_url() -> Iterator[str]:
    with wrong_endpoint() as url:
        yield url


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder below, with a hash of what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


@dataclass
class Command:
    """Runs the command line here, with a home of its own and a Hub that is not reachable."""

    here: Path
    home: Path
    url: str
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, wrong: Wrong) -> tuple[int, str, str]:
        for name, value in wrong.environment:
            self.patch.setenv(name, value)
        arguments = [
            text.format_map(_Known(url=self.url)) if "{url}" in text else text for text in wrong.arguments
        ]
        self.patch.setattr(sys, "argv", ["advdistill", *arguments])
        code = cli.guarded(cli.app)
        out, err = self.capture.readouterr()
        return code, out, err


def _must_not_run(*_: object, **__: object) -> None:
    pytest.fail("it was not refused: a server is being started")


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


@pytest.fixture
def advdistill(
    world: Path,
    failing_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    for name in [n for n in os.environ if n.startswith(("PREFECT_", "ADVDISTILL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ADVDISTILL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("flows.server.LocalServer.start", _must_not_run)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(world)
    return Command(world, tmp_path / "home", failing_url, monkeypatch, capsys)


def test_there_are_enough() -> None:
    assert len({(wrong.arguments, wrong.environment) for wrong in ALL}) == len(ALL) >= 60


@pytest.mark.parametrize("wrong", ALL, ids=lambda wrong: wrong.name)
def test_wrong_input(advdistill: Command, wrong: Wrong) -> None:
    before = contents(advdistill.here)
    code, out, err = advdistill(wrong)
    assert code == 2, out + err
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert _FORM.fullmatch(lines[0])
    for word in wrong.words:
        assert word in lines[0]
    assert "sk-planted" not in lines[0]
    assert "Traceback" not in err
    assert contents(advdistill.here) == before
    assert not (advdistill.home / "server.json").exists()


@pytest.fixture
def without_rights(advdistill: Command) -> Iterator[Command]:
    """The same command for a user who may not look into `locked` or read what is sealed."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        here.chmod(0o777)
        (here / "locked").mkdir()
        make_grading_files(here)
        for name in ("locked/good.jsonl", "sealed.jsonl", "sealed.yaml"):
            (here / name).write_text(json.dumps(GOOD))
            (here / name).chmod(0)
        make_model(here / "sealed_model")
        (here / "sealed_model" / "config.json").chmod(0)
        (here / "locked").chmod(0)
        advdistill.patch.chdir(here)
        advdistill.here = here
        was = os.geteuid()
        advdistill(setting("imports what the others need", "prompts.families=[{name: x}]"))
        advdistill(command("and verify", "verify no_gold.jsonl --out out.jsonl"))
        if was == 0:  # whose modules nobody else may be able to read
            os.seteuid(_NOBODY)
        try:
            yield advdistill
        finally:
            os.seteuid(was)
            (here / "locked").chmod(0o755)


@pytest.mark.parametrize("wrong", FORBIDDEN, ids=lambda wrong: wrong.name)
def test_without_rights(without_rights: Command, wrong: Wrong) -> None:
    code, out, err = without_rights(wrong)
    assert code == 2, out + err
    assert len(err.splitlines()) == 1, err
    for word in wrong.words:
        assert word in err
    assert "Traceback" not in err
