"""Methods side by side through the command line, at smoke size."""

import csv
import json
from pathlib import Path

import pytest
from server_fixture import Cli

pytestmark = pytest.mark.server


def test_arms_share_the_responses_and_are_compared(cli: Cli, tmp_path: Path) -> None:
    asked = ["compare", "smoke", "--root", str(tmp_path), "--arms", "sft-1", "--seeds", "3"]
    summary = cli.json(*asked)
    stages = summary["stages"]
    assert [label for label in stages if label.startswith(("generate", "verify"))] == ["generate", "verify"]
    assert {"train advdistill 3", "train sft-1 3", "evaluate advdistill 3", "compare"} <= set(stages)
    folder = Path(summary["report"]).parent
    found = json.loads((folder / "comparison.json").read_text())
    assert [row["arm"] for row in found["table"]] == ["advdistill", "sft-1"]
    assert {row["num_questions"] for row in found["differences"]} == {8}
    spent = found["spent"]
    assert spent["advdistill"]["steps"] == spent["sft-1"]["steps"] == 4
    # One response of four has a quarter of the tokens, so a step takes all of the 16 prompts.
    assert spent["sft-1"]["tokens"] == pytest.approx(spent["advdistill"]["tokens"], rel=0.25)
    with open(folder / "comparison.csv", newline="") as file:
        assert [row["arm"] for row in csv.DictReader(file)] == ["advdistill", "sft-1"]
    page = (folder / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "SFT on one response" in page
    again = cli.json(*asked)
    assert {stage["outcome"] for stage in again["stages"].values()} == {"cached"}


def test_wrong_arms_and_seeds_are_one_line(cli: Cli) -> None:
    for given, named in (
        (["--arms", "sft-al"], "Did you mean sft-all"),
        (["--seeds", "a"], "--seeds: got a"),
    ):
        done = cli("compare", "smoke", *given)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
        assert named in done.stderr
