"""What a run shows in the Prefect UI: titles, plots that say the figures, a server that is away."""

import base64
import json
import re
from xml.etree import ElementTree

import httpx
import pytest

from advdistill_core.store import Store
from flows import plots, showing
from flows.run_record import RunRecord, StageRecord, headline_figures

METRICS = {
    "headline": "Better.",
    "accuracy_before": 0.25,
    "accuracy_after": 0.5,
    "difference": 0.25,
    "num_questions": 40,
    "num_left_out": 3,
    "weight_on_correct_frac": 0.9,
    "effective_sample_size": 2.5,
    "some_other": 1234.5,
    "flag": True,
    "teacher": {"pass_rate": {"accuracy": 0.8, "accuracy_low": 0.7, "accuracy_high": 0.9}},
    "paired": {
        "before": {"accuracy": 0.25, "accuracy_low": 0.1, "accuracy_high": 0.4, "num_questions": 40},
        "after": {"accuracy": 0.5, "accuracy_low": 0.35, "accuracy_high": 0.65, "num_questions": 40},
    },
}


def picture(address: str) -> ElementTree.Element:
    kind, _, body = address.partition(",")
    assert kind == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(body))


def test_the_figures_have_titles_and_units() -> None:
    rows = headline_figures(METRICS)
    assert list(rows)[:3] == [
        "in a sentence",
        "student before, right answers",
        "student after, right answers",
    ]
    assert rows["student after, right answers"] == "50.0\u00a0%"
    assert rows["difference, points"] == "+25.0"
    assert rows["training weight on correct responses"] == "90.0\u00a0%"
    assert rows["equally weighted responses that a question counts as"] == "2.5"
    assert rows["held-out questions left out, not graded before or after"] == "3"
    assert rows["flag"] == "True"


def test_bars_are_as_long_as_the_shares() -> None:
    address = plots.accuracies(METRICS)
    assert address
    svg = picture(address)
    lengths = [float(bar.attrib["width"]) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert [length / lengths[0] for length in lengths] == pytest.approx([1, 0.25 / 0.8, 0.5 / 0.8])
    texts = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"80.0\u00a0%", "25.0\u00a0%", "50.0\u00a0%"} <= set(texts)


def test_the_loss_falls_on_the_screen_where_it_falls() -> None:
    address = plots.loss([1, 2, 3], [2.0, 1.5, 1.0])
    assert address
    (line,) = picture(address).iter("{http://www.w3.org/2000/svg}polyline")
    heights = [float(y) for y in re.findall(r",(\S+)", line.attrib["points"])]
    assert heights == sorted(heights), "y grows downwards"
    assert plots.loss([1], [2.0]) is None
    assert plots.accuracies({}) is None


def test_a_server_that_is_away_costs_the_display_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("nobody answers")

    for name in ("create_table_artifact", "create_markdown_artifact", "create_image_artifact"):
        monkeypatch.setattr(showing, name, away)
    page = showing.RunPage(RunRecord(run_id="r", name="n", state="running", started_at=0.0))
    page.stages("load", "running")
    page.result(METRICS, None, Store("memory://none"))


def test_addresses_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, object] = {}
    monkeypatch.setattr(showing, "create_table_artifact", lambda rows, key, **_: shown.update({key: rows}))
    monkeypatch.setattr(showing, "create_markdown_artifact", lambda text, key, **_: shown.update({key: text}))
    monkeypatch.setattr(showing, "create_image_artifact", lambda **_: None)
    record = RunRecord(run_id="r", name="n", state="completed", started_at=0.0, metrics=METRICS)
    record.stages["load"] = StageRecord(
        stage="load", outcome="cached", rows=3, seconds=0.1, uri="/data/load/f"
    )
    record.report = "/data/publish/f/report.html"
    page = showing.RunPage(record)
    page.stages("train", "running")
    page.result(METRICS, None, Store("memory://none"))
    assert json.dumps(shown["stages"]).count("cached") == 1
    text = str(shown["report"])
    assert "\n**Report**: `file:///data/publish/f/report.html`\n" in text
    assert "advdistill report latest" in text, "a browser follows no link to a file"
    assert "```" not in text, "the UI shows a block pale grey on pale grey, and cuts it"
    assert "| load | `/data/load/f` |" in text
    assert text.startswith("Better.")
