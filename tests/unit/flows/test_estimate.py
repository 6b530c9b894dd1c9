"""The estimate before a run: what the run then takes, and nothing left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from counting_endpoint import CountingEndpoint
from typer.testing import CliRunner

from advdistill_core.config import DistillConfig
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Store
from flows import catalog
from flows.cli import app


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
