"""The report of a made-up run: its figures by hand, and no text that escapes its place."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from plotly import graph_objects
from report_fixture import CONFIG, HOSTILE, make_run, publish

from advdistill_core.config import DistillConfig, EvaluationConfig
from advdistill_core.errors import ArtifactError
from advdistill_core.evaluation.statistics import paired_difference
from advdistill_core.report import browser, cards, page, sections
from advdistill_core.report.gather import Group, Question
from advdistill_core.stages import PUBLISH, plan_stage, run_stage
from advdistill_core.store import Artifact, Store, tables


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    store = Store(str(tmp_path_factory.mktemp("store")))
    return publish(store, texts={(0, 0): HOSTILE, (0, 1): "lone surrogate-free text"})


@pytest.fixture(scope="module")
def metrics(report: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.file("metrics.json"))
    return found


@pytest.fixture(scope="module")
def html(report: Artifact) -> str:
    return report.file("report.html").decode()


def scripts(html: str) -> list[tuple[str, str]]:
    """Attributes and content of each script element, as a browser would cut them."""
    return re.findall(r"<script([^>]*)>(.*?)</script", html, flags=re.S | re.I)


def test_groups_and_verdicts(metrics: dict[str, Any]) -> None:
    teacher = metrics["teacher"]
    # ccww, cccc, wwuW, cwtw, tttt: a group is judged by its gradable responses only.
    assert teacher["groups"] == {"mixed": 2, "all_correct": 1, "all_wrong": 1, "ungradable": 1}
    assert teacher["verdicts"] == {"correct": 7, "timeout": 5, "unparsed": 1, "wrong": 7}
    assert (teacher["truncated"], teacher["unparsed"], teacher["undecided"]) == (1, 1, 5)
    assert metrics["teacher_pass_rate"] == pytest.approx((1 / 2 + 1 + 0 + 1 / 3) / 4)
    assert teacher["trained"] == 7
    assert (metrics["weight_on_correct_frac"], metrics["effective_sample_size"]) == (0.9, 2.5)


@pytest.mark.parametrize(
    ("verdicts", "kind"),
    [("cct", "all_correct"), ("cwt", "mixed"), ("wut", "all_wrong"), ("te", "ungradable")],
)
def test_the_kind_of_a_group_looks_past_what_was_not_graded(verdicts: str, kind: str) -> None:
    names = {"c": "correct", "w": "wrong", "u": "unparsed", "t": "timeout", "e": "error"}
    question = Question("q", "", "", "", "")
    assert Group(question, [{"verdict": names[v]} for v in verdicts]).kind == kind


def test_accuracy_and_difference(metrics: dict[str, Any]) -> None:
    assert (metrics["accuracy_before"], metrics["accuracy_after"]) == (0.25, 0.5)
    assert metrics["paired"]["outcomes"] == {
        "both_right": 8,
        "gained": 12,
        "lost": 2,
        "both_wrong": 18,
        "left_out": 0,
    }
    expected = paired_difference([1] * 10 + [0] * 30, [1] * 8 + [0] * 2 + [1] * 12 + [0] * 18)
    assert metrics["difference"] == expected.value == 0.25
    assert (metrics["difference_low"], metrics["difference_high"]) == (expected.low, expected.high)


def test_stages_tell_rows_time_and_tokens(metrics: dict[str, Any]) -> None:
    stages = metrics["stages"]
    assert list(stages) == [
        "load",
        "evaluate before",
        "generate",
        "verify",
        "weigh",
        "train",
        "evaluate after",
    ]
    assert stages["generate"]["tokens"] == {"generated": 400}
    assert stages["load"]["rows"] == 45
    assert all(stage["seconds"] >= 0 for stage in stages.values())


def test_planted_contamination_is_told(tmp_path: Path) -> None:
    heldout = "Mia counts 30 pencils in her bag. She gives 2 of them to Ben. How many are left for Mia?"
    found = publish(Store(str(tmp_path)), texts={(0, 0): f"As seen before: {heldout} 28."}, num_heldout=9)
    clean = publish(Store(str(tmp_path / "clean")), num_heldout=9)
    told = json.loads(found.file("metrics.json"))["contamination"]
    assert told["num_questions"] > 0
    assert set(told["in_responses"]) == {"ngram"}
    assert told["matches"][0]["row_id"] == "t00000 / 0"
    assert json.loads(clean.file("metrics.json"))["contamination"]["num_questions"] == 0


def test_metrics_are_plain_json_without_nan(report: Artifact) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(report.file("metrics.json"), parse_constant=refuse)


def test_a_run_without_heldout_questions_has_a_report(tmp_path: Path) -> None:
    found = publish(Store(str(tmp_path)), num_heldout=0)
    metrics = json.loads(found.file("metrics.json"))
    assert (metrics["num_questions"], metrics["difference"]) == (0, None)
    assert "nothing is known" in metrics["headline"]
    assert "nothing is known" in found.file("model_card.md").decode()


def test_page_is_whole_and_asks_for_nothing(html: str) -> None:
    assert html.startswith("<!doctype html>")
    without_scripts = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.S)
    links = re.findall(r"""\b(?:src|href)\s*=\s*["']?([^\s"'>]*)""", without_scripts)
    assert links
    assert all(link.startswith("#") for link in links)
    assert "@import" not in without_scripts
    assert "url(" not in without_scripts


def test_only_our_scripts_may_run(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    running = [text for attributes, text in scripts(html) if "type=" not in attributes]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in running]
    assert set(rules["script-src"].split()) == set(hashes)
    assert len(hashes) == 4


def test_hostile_text_is_nowhere_as_markup(html: str) -> None:
    assert "window.hacked" not in html
    packed = [text for attributes, text in scripts(html) if "texts-train-0" in attributes]
    texts = [r["text"] for r in json.loads(gzip.decompress(base64.b64decode(packed[0])))[0]["responses"]]
    assert texts[0] == HOSTILE


def test_hostile_question_and_name_are_escaped() -> None:
    text = page.embedded_json({"q": HOSTILE})
    assert "<" not in text
    assert json.loads(text) == {"q": HOSTILE}


def test_plots_are_valid_and_coloured_by_the_page(html: str) -> None:
    (data,) = [text for attributes, text in scripts(html) if "figures-data" in attributes]
    figures = json.loads(data)
    assert {"accuracy", "difference", "rewards", "advantages", "weights", "train-loss", "lengths"} <= {
        f["id"] for f in figures
    }
    plain = re.sub(r"var\(--[a-z]+\)", "#123456", json.dumps(figures))
    for figure in json.loads(plain):
        graph_objects.Figure({"data": figure["data"], "layout": figure["layout"]})
        # A title that runs along the y-axis has about 200 px; what is longer is cut at both ends.
        assert len(figure["layout"]["yaxis"]["title"]["text"]) <= 24, figure["id"]


def test_every_histogram_counts_every_row_once(html: str) -> None:
    (data,) = [text for attributes, text in scripts(html) if "figures-data" in attributes]
    figures = {f["id"]: f for f in json.loads(data)}

    def total(name: str) -> int:
        return sum(sum(trace["y"]) for trace in figures[name]["data"])

    assert total("group-counts") == 4  # the prompt without a verdict is not among them
    assert total("rewards") == total("advantages") == 15  # of 20, five timed out
    assert total("weights") == 7


def test_browser_rows_and_filters(html: str) -> None:
    (data,) = [text for attributes, text in scripts(html) if "views-data" in attributes]
    heldout, train = json.loads(data)
    assert [row[3] for row in train["rows"]] == ["ccww", "cccc", "wwuW", "cwtw", "tttt"]
    counts = {f["label"]: f["count"] for f in train["filters"]}
    assert counts == {
        "Mixed": 2,
        "All correct": 1,
        "All wrong": 1,
        "Truncated": 1,
        "Unparsed": 1,
        "Not graded": 2,
        "Merged duplicates": 0,
        "Graders disagree": 0,
    }
    assert {f["label"]: f["count"] for f in heldout["filters"]}["Gained"] == 12
    bits = {f["label"]: 1 << i for i, f in enumerate(train["filters"])}
    assert train["rows"][2][2] == bits["All wrong"] | bits["Truncated"] | bits["Unparsed"]


def test_questions_with_one_instruction_differ_in_the_list() -> None:
    def snippet(text: str) -> str:
        asked = {"q": Question("q", "", text, "1", "made up")}
        return browser.heldout_view(asked, [], []).entries[0].snippet

    instruction = "State the final answer to the following arithmetic problem: "
    assert snippet(f"{instruction}12 + 34 =") == f"{instruction}12 + 34 ="
    for filling in ("Show every step of your work. ", "\n\nShow every step.\n" * 900):
        shown = {snippet(f"{instruction}{filling}{i} + 34 =") for i in range(10)}
        assert len(shown) == 10
        assert all(len(text) <= 90 and text.startswith("State the final answer") for text in shown)


def test_rows_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    refs = make_run(store)
    rows = store.open(refs["weights"]).table()
    out = store.begin("weigh", "1", "e" * 32, "weights")
    out.write_tables([rows.take(list(reversed(range(rows.num_rows))))])
    with pytest.raises(ArtifactError, match="different keys"):
        run_stage(PUBLISH, CONFIG, {**refs, "weights": out.commit({}, {})}, store)


def test_cards_have_metadata_figures_and_lineage(report: Artifact, metrics: dict[str, Any]) -> None:
    model, dataset = (report.file(f"{name}_card.md").decode() for name in ("model", "dataset"))
    for card in (model, dataset):
        assert card.startswith("---\n")
        for stage in metrics["stages"].values():
            assert stage["fingerprint"] in card
    assert metrics["headline"] in model
    assert "| after training | 50.0\u00a0% |" in model
    assert "12 questions gained, 2 lost" in model
    assert "| prompts all wrong | 1 |" in dataset


def test_what_had_too_little_weight_is_told(html: str, report: Artifact) -> None:
    row = re.search(r"<tr>(?:(?!</tr>).)*teacher responses of too little weight.*?</tr>", html, re.DOTALL)
    assert row is not None
    assert "<td>3</td>" in re.sub(r"<td[^>]*>", "<td>", row[0])
    card = report.file("dataset_card.md").decode()
    assert "Weights below 10\u00a0% of their group's largest were set to 0." in card


def test_cards_tell_no_folder(metrics: dict[str, Any]) -> None:
    config = DistillConfig.model_validate(
        {"prompts": {"source": "file", "path": "/home/someone/secret/questions.jsonl"}}
    )
    found = "".join(cards.render(config, metrics).values())
    assert "questions.jsonl" in found
    assert "someone" not in found


def test_report_follows_the_names_it_shows(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    refs = make_run(store)
    renamed = CONFIG.model_copy(update={"name": "other"})
    plans = {plan_stage(PUBLISH, config, refs, store).fingerprint for config in (CONFIG, renamed)}
    assert len(plans) == 2


def test_schemas_of_the_made_up_run_are_the_documented_ones(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    refs = make_run(store)
    for name in ("prompts", "responses", "rewards", "weights"):
        assert store.open(refs[name]).table().schema.equals(tables.SCHEMAS[name])


def test_pass_at_k_is_shown_when_there_are_several_samples() -> None:
    before = {"pass_at": {"1": 0.25, "2": 0.5}, "maj_at": {"1": 0.25, "2": 0.25}}
    after = {"pass_at": {"1": 0.5, "2": 0.75}, "maj_at": {"1": 0.5, "2": 0.5}}
    rows = sections.at_k_rows({"paired": {"before": before, "after": after}})
    assert [row[0] for row in rows] == ["pass@1", "pass@2", "maj@1", "maj@2"]
    assert [cell.replace("\u00a0", " ") for cell in rows[1][1:]] == ["50.0 %", "75.0 %"]
    assert sections.at_k_rows({"paired": {"before": {}, "after": {}}}) == []


def test_where_graders_disagree_is_filtered_and_told(tmp_path: Path) -> None:
    """Question t00000 has the reference 0; its first response is called correct and says 7."""
    config = CONFIG.model_copy(update={"evaluation": EvaluationConfig(second_opinions=20)})
    texts = {(0, 0): "The answer is 7.", (0, 1): "The answer is 0.", (1, 0): "The answer is 1."}
    found = publish(Store(str(tmp_path)), config, texts=texts, verdicts=["cc", "c"])
    told = json.loads(found.file("metrics.json"))["second_opinions"]
    assert told == {"asked": 3, "disagreeing": 1}
    html = found.file("report.html").decode()
    assert '"label":"Graders disagree","count":1' in html
    assert "of 1 it says otherwise" in html
