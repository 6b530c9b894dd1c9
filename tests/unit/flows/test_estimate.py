"""The estimate before a run: what the run then takes, and nothing left behind."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from counting_endpoint import CountingEndpoint
from typer.testing import CliRunner

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Store
from advdistill_core.teachers import estimate as estimating
from advdistill_core.teachers.estimate import Estimate, TeacherEstimate
from flows import catalog, cli
from flows.cli import app
from flows.commands.estimate import _show


def ask(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["estimate", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def test_tokens_and_money_of_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with CountingEndpoint(seconds=0.05, tokens=7) as server:
        changes = [
            "teacher.backend=openai", "teacher.model=m", f"teacher.base_url={server.url}", "teacher.k=6",
            "teacher.prices={prompt: 2, completion: 10}", "prompts.num_train=40",
        ]  # fmt: skip
        arguments = [word for change in changes for word in ("--set", change)]
        found = ask("smoke", *arguments, "--prompts", "5", "--samples", "3")
        # The check of the address, as before a run, asks for a token of its own.
        assert sum(body.get("n", 1) for body in server.bodies if body["max_tokens"] > 1) == 5 * 3
    assert found["responses"] == 40 * 6
    assert found["tokens"] == found["tokens_high"] == 40 * 6 * 7
    assert found["prompt_tokens"] == 40 * 11
    assert found["money"] == pytest.approx((40 * 11 * 2 + 40 * 6 * 7 * 10) / 1e6)
    probe = found["teachers"][0]
    assert found["seconds"] == pytest.approx(probe["probe_seconds"] * 240 / 15)
    assert list(tmp_path.iterdir()) == []  # no store, no cache


def test_the_interval_holds_what_the_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses of differing lengths, a model in process."""
    monkeypatch.chdir(tmp_path)
    changes = [
        "teacher.max_new_tokens=40", "teacher.temperature=1.5", "teacher.k=4", "prompts.num_train=60",
        "prompts.families=[{name: chain_sum, params: {min_terms: 2, max_terms: 4}}]",
    ]  # fmt: skip
    arguments = [word for change in changes for word in ("--set", change)]
    found = ask("smoke", *arguments, "--prompts", "12", "--samples", "4")
    assert found["teachers"][0]["tokens_low"] < found["tokens"] < found["tokens_high"]
    config: DistillConfig = catalog.load("smoke", changes, str(tmp_path / "store"))
    store = Store(config.storage.root)
    loaded = run_stage(LOAD, config, {}, store)
    made = store.open(run_stage(GENERATE, config, {"prompts": loaded}, store)).manifest
    assert found["responses"] == made.rows
    taken = made.tokens["generated"]
    assert abs(found["tokens"] - taken) < 3 * (found["tokens_high"] - found["tokens"]) / 1.96
    assert found["prompt_tokens"] == pytest.approx(made.metrics["prompt_tokens"], rel=0.1)


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["estimate", "smoke"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "64 responses to 16 prompts: 512 tokens" in done.stdout
    assert "cut off at max_new_tokens" in done.stdout
    assert "money" not in done.stdout, "there are no prices"


def test_names_of_models_are_whole_on_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Qwen/Qwen2.5-7B-Instruct", "smollm2-135m-instruct")
    figures = {name: 3.0 for name, field in TeacherEstimate.model_fields.items() if field.annotation is float}
    counts = {name: 3 for name, field in TeacherEstimate.model_fields.items() if field.annotation is int}
    teachers = [TeacherEstimate(**{"teacher": name} | figures | counts) for name in names]
    totals = dict.fromkeys(Estimate.model_fields, 6) | {"is_priced": True, "teachers": teachers}
    monkeypatch.setenv("COLUMNS", "80")
    _show(Estimate.model_validate(totals))
    told = capsys.readouterr().out
    assert all(name in told for name in names)
    assert "…" not in told
    assert "money" in told


@pytest.mark.parametrize(("place", "section"), [(0, "teacher"), (1, "teacher.mixture.0")])
def test_an_error_of_a_model_names_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    place: int, section: str,
) -> None:  # fmt: skip
    """Errors of models know no sections; those of an endpoint do."""
    opened = []
    whole = estimating._probe

    def refuse(*arguments: Any) -> Any:
        opened.append(1)
        if len(opened) > place:
            raise InputError("model", "it", "another", "Choose one.")
        return whole(*arguments)

    monkeypatch.setattr(estimating, "_probe", refuse)
    monkeypatch.chdir(tmp_path)
    mixture = "teacher.mixture=[{model: tiny-random-llama, k: 1}]"
    monkeypatch.setattr(sys, "argv", ["advdistill", "estimate", "smoke", "--set", mixture])
    assert cli.guarded(app) == 2
    assert f"advdistill: {section}.model: got it, expected another. Choose one." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--root", "Other commands have it, `estimate` does without. Leave it out."),
        ("--promts", "Did you mean --prompts?"),
        ("--nothing", "`advdistill estimate --help` lists them."),
    ],
)
def test_an_option_of_other_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["advdistill", "estimate", "smoke", option, "x"])
    assert cli.guarded(app) == 2
    assert said in capsys.readouterr().err
