"""The stage `weigh` on small artifacts."""

import json

import pytest

from advdistill_core.config import DistillConfig, WeightingConfig
from advdistill_core.errors import ArtifactError, InputError
from advdistill_core.progress import silent
from advdistill_core.report.figures import weighting
from advdistill_core.rewards.files import read_batches, write_batches
from advdistill_core.store import Store, tables
from advdistill_core.weighting import weigh_group
from advdistill_core.weighting.stage import run, why_dropped
from flows.commands.weigh import weigh_file
from tasks.weigh import summary

# prompt, sample, verdict, reward, text
ROWS = [
    ("mixed", 0, "correct", 1.2, "4"),
    ("mixed", 1, "wrong", 0.1, "5"),
    ("mixed", 2, "timeout", None, "6"),
    ("mixed", 3, "correct", 1.2, "4"),
    ("wrong", 0, "wrong", 0.2, "a"),
    ("wrong", 1, "unparsed", 0.1, "b"),
    ("right", 0, "correct", 1.2, "a"),
    ("right", 1, "correct", 1.1, "b"),
    ("broken", 0, "error", None, "a"),
    ("broken", 1, "error", None, "b"),
]


def artifacts(tmp_path, rows=ROWS, reward_rows=None, rows_per_part=None):
    store = Store(str(tmp_path))
    responses = [
        {
            "prompt_id": p, "sample_id": s, "text": text, "finish_reason": "stop", "num_tokens": 2,
            "teacher": "t", "seed": 0, "request_hash": "h",
        }
        for p, s, _, _, text in rows
    ]  # fmt: skip
    rewards = [
        {"prompt_id": p, "sample_id": s, "verdict": v, "extracted": None, "truncated": False}
        | dict.fromkeys(tables.REWARD_PARTS)
        | {"reward": r}
        for p, s, v, r, _ in (reward_rows or rows)
    ]
    refs = {}
    for name, content in (("responses", responses), ("rewards", rewards)):
        out = store.begin(name, "1", "f", name)
        step = rows_per_part or max(len(content), 1)
        for i in range(0, max(len(content), 1), step):
            out.write_tables([tables.from_rows(content[i : i + step], tables.SCHEMAS[name])], f"part{i:02d}")
        refs[name] = out.commit({}, {})
    return store, {name: store.open(ref) for name, ref in refs.items()}


def weigh(tmp_path, min_weight_frac=0.0, **kwargs):
    """The rows and the manifest; with every weight kept unless told otherwise, so that figures of
    uneven weights are looked at."""
    store, inputs = artifacts(tmp_path, **kwargs)
    out = store.begin("weigh", "1", "f", "weights")
    config = DistillConfig(weighting=WeightingConfig(min_weight_frac=min_weight_frac))
    run(config, inputs, {}, out, silent)
    artifact = store.open(out.commit({}, {}))
    return artifact.table().to_pylist(), artifact.manifest


def test_rows_and_metrics(tmp_path):
    rows, manifest = weigh(tmp_path)
    assert [(r["prompt_id"], r["sample_id"]) for r in rows] == [r[:2] for r in ROWS]
    by_key = {(r["prompt_id"], r["sample_id"]): r for r in rows}
    assert by_key["mixed", 3]["merged_into"] == 0
    assert by_key["mixed", 3]["weight"] == 0
    assert by_key["mixed", 0]["weight"] + by_key["mixed", 1]["weight"] == pytest.approx(1)
    assert by_key["mixed", 2]["advantage"] is None
    assert by_key["mixed", 2]["weight"] == 0
    assert [by_key["right", i]["weight"] for i in (0, 1)] == [0.5, 0.5]
    assert not any(r["weight"] for r in rows if r["prompt_id"] in ("wrong", "broken"))
    metrics = manifest.metrics
    expected = {"num_groups": 4, "mixed": 1, "all_correct": 1, "all_wrong": 1, "ungradable": 1}
    expected |= {"dropped_groups": 2, "ungradable_responses": 3, "merged_responses": 1}
    expected |= {"trained_responses": 4, "slight_responses": 0, "num_responses": 10}
    expected |= {"ungradable_ids": ["broken"]}
    assert {k: metrics[k] for k in expected} == expected
    assert metrics["dropped_because"] == {"all wrong": 1, "without any verdict": 1}
    on_correct = by_key["mixed", 0]["weight"]
    assert metrics["weight_on_correct_frac"] == pytest.approx((1 + on_correct) / 2)
    wrong = by_key["mixed", 1]["weight"]
    assert metrics["effective_sample_size"] == pytest.approx((2 + 1 / (on_correct**2 + wrong**2)) / 2)


def test_what_is_too_slight_is_counted(tmp_path):
    rows, manifest = weigh(tmp_path, min_weight_frac=WeightingConfig().min_weight_frac)
    weight = {(r["prompt_id"], r["sample_id"]): r["weight"] for r in rows}
    assert (weight["mixed", 0], weight["mixed", 1]) == (1, 0)
    counted = {name: manifest.metrics[name] for name in ("trained_responses", "slight_responses")}
    assert counted == {"trained_responses": 3, "slight_responses": 1}
    told = {row["what"]: row["value"] for row in summary(manifest.metrics)}
    assert told["responses of too little weight"] == 1


def test_parts_do_not_matter(tmp_path):
    whole, first = weigh(tmp_path / "a")
    parts, second = weigh(tmp_path / "b", rows_per_part=3)
    assert whole == parts
    assert first.content_hash() == second.content_hash()


def test_an_empty_table_gives_an_empty_table(tmp_path):
    rows, manifest = weigh(tmp_path, rows=[])
    assert rows == []
    assert manifest.metrics["num_groups"] == 0


@pytest.mark.parametrize(
    "other",
    [ROWS[:-1], ROWS[1:], [ROWS[1], ROWS[0], *ROWS[2:]], [*ROWS, ("more", 0, "correct", 1.0, "x")]],
)
def test_rewards_of_other_responses_are_refused(tmp_path, other):
    with pytest.raises(ArtifactError, match="expected"):
        weigh(tmp_path, reward_rows=other)


def test_a_group_that_comes_in_two_pieces_is_refused(tmp_path):
    split = [ROWS[0], ROWS[4], ROWS[1]]
    with pytest.raises(ArtifactError, match="order"):
        weigh(tmp_path, rows=split)


def test_weigh_file(tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt_id": "a", "correct": True, "reward": 1.0, "kept": "é"},
        {"prompt_id": "b", "correct": False, "reward": 0.0},
        {"prompt_id": "a", "correct": False, "reward": 0.0},
        {"prompt_id": "a", "correct": None, "reward": None},
    ]
    source.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    counts = weigh_file(source, target, ["weighting.tau=1", "weighting.ddof=0", "weighting.eps=0"])
    got = [json.loads(line) for line in target.read_text().splitlines()]
    assert [{k: r[k] for k in row} for r, row in zip(got, rows, strict=True)] == rows
    assert counts == {"rows": 4, "groups": 2, "mixed": 1, "all_wrong": 1}
    # A = 1, -1 with population deviation 1/2: weights e^1 / (e^1 + e^-1) and the rest
    assert got[0]["advantage"] == pytest.approx(1.0)
    assert got[0]["weight"] == pytest.approx(0.8807970779778823)
    assert got[2]["weight"] == pytest.approx(1 - 0.8807970779778823)
    assert (got[1]["weight"], got[3]["weight"], got[3]["advantage"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "row 1"),
        ("[1]", "row 1"),
        ('{"correct": true, "reward": 1}', "prompt_id"),
        ('{"prompt_id": "a", "correct": "yes", "reward": 1}', "correct"),
        ('{"prompt_id": "a", "correct": true, "reward": "1"}', "reward"),
        ('{"prompt_id": "a", "correct": true, "reward": NaN}', "reward"),
        ('{"prompt_id": "a", "correct": null, "reward": 1}', "correct"),
        ('{"prompt_id": null, "correct": true, "reward": 1}', "prompt_id"),
    ],
)
def test_weigh_file_names_the_bad_row(tmp_path, line, what):
    source = tmp_path / "in.jsonl"
    source.write_text(line)
    with pytest.raises(InputError, match=what) as caught:
        weigh_file(source, tmp_path / "out.jsonl")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_weigh_file_without_a_file(tmp_path):
    with pytest.raises(InputError, match="can be read"):
        weigh_file(tmp_path / "absent.jsonl", tmp_path / "out.jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_weigh_file_keeps_text_with_unusual_line_ends(tmp_path, suffix):
    """JSON may hold them as they are; only a line feed ends a row."""
    rows = [
        {"prompt_id": "a", "correct": True, "reward": 1.0, "text": "one\u2028two\u2029three\x85four"},
        {"prompt_id": "a", "correct": False, "reward": 0.0, "text": "five"},
    ]
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_batches(source, [rows])
    assert weigh_file(source, target) == {"rows": 2, "groups": 1, "mixed": 1}
    got = [row for batch in read_batches(target) for _, row in batch]
    assert [row["text"] for row in got] == [row["text"] for row in rows]
    assert got[0]["weight"] > got[1]["weight"]


def test_the_table_of_a_run_tells_what_was_dropped_and_why(tmp_path):
    _, manifest = weigh(tmp_path)
    told = {row["what"]: row["value"] for row in summary(manifest.metrics)}
    assert told["prompts dropped: all wrong"] == told["prompts dropped: without any verdict"] == 1
    assert told["responses trained on"] == 4
    size = manifest.metrics["effective_sample_size"]
    assert told["effective sample size, responses per prompt"] == pytest.approx(size, abs=5e-4)
    assert told["with 2 of 2 correct (1 prompts)"] == "size 2.00, on correct 100.0%"


@pytest.mark.parametrize(
    ("right", "settings", "why"),
    [
        ([False, False], {}, "all wrong"),
        ([True, True], {"all_correct": "drop"}, "all correct (dropped by the settings)"),
        ([True, True], {"prompt_weight": "difficulty"}, "too easy or too hard (prompt_weight difficulty)"),
    ],
)
def test_why_a_group_is_dropped(right, settings, why):
    group = weigh_group([float(r) for r in right], right, WeightingConfig(**settings))
    assert group.dropped
    assert why_dropped(group) == why


def test_the_plot_of_the_weights_shows_the_figures_of_the_stage(tmp_path):
    _, manifest = weigh(tmp_path)
    size, share = weighting(manifest.metrics)
    assert size["data"][0]["x"] == share["data"][0]["x"] == ["2 of 2", "2 of 3"]
    rows = manifest.metrics["by_num_correct"]
    assert size["data"][0]["y"] == [round(row["effective_sample_size"], 2) for row in rows]
    assert share["data"][0]["y"] == [round(100 * row["weight_on_correct_frac"], 2) for row in rows]
    assert weighting({}) == []
