"""What every command has: help, `--json`, completion, one form of errors."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from advdistill_core.store import Store
from flows import catalog, cli
from flows.run_record import FOLDER, RunRecord, StageRecord

COMMANDS: dict[str, Any] = dict(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
LISTING = {
    "recipes": {},
    "status": {"runs": []},
    "champions": {},
    "gc": {
        "deleted": False,
        "artifacts": [],
        "runs": [],
        "kept": {
            reason: {"artifacts": 0, "size_bytes": 0}
            for reason in ("run", "champion", "pin", "in use", "young")
        },
    },
    "down": {"stopped": False},
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["advdistill", *arguments])
    return cli.guarded(cli.app)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(name: str) -> None:
    command = COMMANDS[name]
    options = {option for param in command.params for option in param.opts}
    assert "--json" in options
    assert command.help
    assert all(param.help for param in command.params if param.name != "help")


@pytest.mark.parametrize("name", LISTING)
def test_json_of_a_machine_without_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVDISTILL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADVDISTILL_ROOT", raising=False)
    assert run(monkeypatch, name, "--json") == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    if name == "recipes":
        assert set(told) == set(catalog.shipped())
    else:
        assert told == LISTING[name]
    assert not (tmp_path / "advdistill-store").exists()


def test_status_without_runs_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--root", str(tmp_path)) == 0
    assert capsys.readouterr().out == f"No run under {tmp_path}; --root names another place.\n"


def test_an_error_is_an_object_too_for_who_reads_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "run", "smoke", "--set", "weighting.tau=-1", "--json") == 2
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert said.err == f"advdistill: {told['error']}\n"
    assert told["error"].startswith("weighting.tau: got -1")
    assert told["exit_code"] == 2


@pytest.mark.parametrize(("name", "said"), [("gc", "Nothing to remove"), ("champions", "No champion")])
def test_nothing_to_list_is_said(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, name, "--root", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith(f"{said} under {tmp_path}")


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"advdistill {version('advdistill')}\n"


@pytest.mark.parametrize("own", ["", "fonts"], ids=["ours", "the user's"])
def test_libraries_write_below_our_folder_and_not_into_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    """reasoning-gym imports matplotlib, which keeps a list of fonts."""
    for name, folder in (("HOME", "user"), ("ADVDISTILL_HOME", "ours"), ("MPLCONFIGDIR", own)):
        monkeypatch.setenv(name, str(tmp_path / folder))
    if not own:
        monkeypatch.delenv("MPLCONFIGDIR")
    where = "import matplotlib as m; print(m.get_cachedir(), m.get_configdir())"
    told: list[str] = []

    def command(_: object) -> int:
        told.append(subprocess.run([sys.executable, "-c", where], capture_output=True, text=True).stdout)
        return 0

    monkeypatch.setattr(cli, "guarded", command)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit):
        cli.main()
    wanted = tmp_path / (own or "ours/matplotlib")
    assert told[0].split() == [str(wanted)] * 2
    assert not (tmp_path / "user").exists()


def test_usage_errors_of_a_real_process(tmp_path: Path) -> None:
    """As a shell sees it; the other wrong inputs run in one process."""
    for arguments in (["run"], ["rn", "smoke"], ["gc", "--min-age-h", "old"], ["run", "smoke", "--st", "x"]):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("advdistill: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("advdistill doc", "doctor"),
        ("advdistill run qui", "quickstart"),
        ("advdistill doctor gsm8k-a", "gsm8k-api"),
    ],
)
def test_the_shell_completes_commands_and_recipes(words: str, offered: str) -> None:
    program = Path(sys.executable).parent / "advdistill"
    asked = {
        "_ADVDISTILL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [offered]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    program = Path(sys.executable).parent / "advdistill"
    done = subprocess.run(
        [program, "--show-completion", shell],
        capture_output=True,
        text=True,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "_ADVDISTILL_COMPLETE" in done.stdout


def test_status_on_80_columns_names_runs_and_what_stopped_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = {
        label: StageRecord(stage=label, outcome="cached", rows=9, seconds=1.0, uri="")
        for label in ("load", "evaluate before", "generate", "verify", "weigh")
    }
    broken = RunRecord(
        run_id="06a93b52-28e4-7f5a-8000-5d2a0c3b7e11",
        name="a name [of some length]",
        state="failed",
        started_at=1.0,
        seconds=750.0,
        stages=done,
        ended_in="train",
        error="StageError: no space is left on the device",
    )
    Store(str(tmp_path)).files.write(f"{FOLDER}/{broken.run_id}.json", broken.model_dump_json().encode())
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, "status", "--root", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    columns = list(
        zip(*(re.split("[│┃]", line)[1:-1] for line in lines if re.search("[│┃]", line)), strict=True)
    )
    told = [" ".join("".join(column).split()) for column in columns]
    assert told[0] == "run 06a93b52"
    assert told[1] == "name a name [of some length]"
    assert told[4].endswith("train failed: StageError: no space is left on the device")


def test_runs_on_pools_of_one_minute_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their ids begin with the time: two of one minute had the same eight characters."""
    ids = ["01a20353-7121-78a2-8b4e-93057b9721c6", "01a20353-9d05-767f-b44d-032525a94e05"]
    for number, run_id in enumerate(ids):
        record = RunRecord(
            run_id=run_id, name="a", state="completed", started_at=float(number), report=f"/r{number}.html"
        )
        Store(str(tmp_path)).files.write(f"{FOLDER}/{run_id}.json", record.model_dump_json().encode())
    assert run(monkeypatch, "status", "--root", str(tmp_path)) == 0
    shown = re.findall(r"01a20353-\S*", capsys.readouterr().out)
    assert len(set(shown)) == 2
    for name, report in ((shown[0], "/r1.html"), (shown[1], "/r0.html"), ("latest", "/r1.html")):
        assert run(monkeypatch, "report", name, "--root", str(tmp_path)) == 0
        assert capsys.readouterr().out.strip() == report
    assert run(monkeypatch, "report", "01a20353", "--root", str(tmp_path)) == 2
    assert f"{ids[1]} and {ids[0]} begin so" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("command", "arguments", "taken"),
    [
        ("verify", ["a.jsonl", "--task", "math"], "IN"),
        ("verify", ["b.jsonl", "--task", "math", "--audit", "./a.jsonl"], "IN"),
        ("verify", ["b.jsonl", "--task", "math", "--audit", "./b.jsonl"], "--out"),
        ("weigh", ["./a.jsonl"], "IN"),
    ],
)
def test_a_file_is_never_written_over_one_that_is_read_or_written(
    command: str,
    arguments: list[str],
    taken: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = '{"gold": "5", "prediction": "5"}\n'
    (tmp_path / "a.jsonl").write_text(given)
    assert run(monkeypatch, command, "a.jsonl", "--out", *arguments) == 2
    told = capsys.readouterr().err.strip()
    assert f"another file than {taken}," in " ".join(told.split())
    assert (tmp_path / "a.jsonl").read_text() == given
    assert not (tmp_path / "b.jsonl").exists()
