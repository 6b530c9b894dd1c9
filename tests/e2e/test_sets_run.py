"""A run with everything that the evaluation can do: sets, samples, teacher, likelihoods, gates."""

import json
from pathlib import Path

import pytest
from server_fixture import Cli

pytestmark = [pytest.mark.server, pytest.mark.slow]

SETS = (
    "evaluation.sets=[{name: longer, num_questions: 6, seed: 7, families: "
    "[{name: chain_sum, params: {min_terms: 4, max_terms: 4, min_digits: 1, max_digits: 1}}]}]"
)


def test_every_set_model_and_sampling_is_measured_and_shown(cli: Cli, tmp_path: Path) -> None:
    changes = [SETS, "evaluation.more_samples=2", "evaluation.teacher=true", "evaluation.likelihoods=8"]
    changes += ["evaluation.contamination=drop", "evaluation.second_opinions=8"]
    asked = ["run", "smoke", "--root", str(tmp_path), *(part for c in changes for part in ("--set", c))]
    summary = cli.json(*asked)
    stages = summary["stages"]
    for who in ("before", "teacher", "after"):
        for place in ("", " samples", " longer", " longer samples"):
            assert f"evaluate {who}{place}" in stages
    assert stages["evaluate after longer"]["rows"] == 6
    assert stages["evaluate after longer samples"]["rows"] == 12
    folder = Path(summary["report"]).parent
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [(row["set"], row["sampling"]) for row in metrics["sets"]] == [
        ("heldout", "answers"),
        ("heldout", "samples"),
        ("longer", "answers"),
        ("longer", "samples"),
    ]
    assert set(metrics["contamination"]["sets"]) == {"heldout", "longer"}
    assert metrics["contamination"]["policy"] == "drop"
    assert "Every evaluation set" in (folder / "report.html").read_text()
    plan = cli.json(*asked, "--dry-run")
    assert plan["stages"] == dict.fromkeys(stages, "cached")
