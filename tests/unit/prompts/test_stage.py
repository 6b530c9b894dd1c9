"""The stage `load`: questions from every source, split without overlap, refused with their row."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from advdistill_core import prompts
from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.prompts import sources
from advdistill_core.prompts.types import Question
from advdistill_core.stages import LOAD, plan_stage, run_stage
from advdistill_core.store import Store, tables

ROWS = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(12)]
SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def config(**settings: Any) -> DistillConfig:
    return DistillConfig.model_validate({"prompts": settings})


def load(root: Path, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    """Rows of each split, in order."""
    store = Store(str(root))
    artifact = store.open(run_stage(LOAD, config(**settings), {}, store))
    found = {}
    for split in ("train", "heldout"):
        table = artifact.table(split)
        assert table.schema.equals(tables.PROMPTS)
        found[split] = table.to_pylist()
        assert {row["split"] for row in found[split]} <= {split}
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def questions(rows: list[dict[str, Any]]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


def normalised(rows: list[dict[str, Any]]) -> set[str]:
    return {" ".join(text.lower().split()) for text in questions(rows)}


def test_generated_questions_are_distinct_right_and_shared_by_weight(tmp_path: Path) -> None:
    families = [
        {"name": "chain_sum", "weight": 1, "params": SUMS},
        {"name": "products", "weight": 3, "params": {**SUMS, "max_digits": 2}},
    ]
    found = load(tmp_path, families=families, num_train=40, num_heldout=20)
    train, heldout = found["train"], found["heldout"]
    assert (len(train), len(heldout)) == (40, 20)
    assert len(normalised(train) | normalised(heldout)) == 60
    for rows, total in ((train, 40), (heldout, 20)):
        assert sum(row["source"] == "reasoning_gym/chain_sum" for row in rows) == total / 4
    for row in train + heldout:
        expression = questions([row])[0].split(":")[1].split("=")[0].split(".")[0]
        assert eval(expression, {"__builtins__": {}}) == int(row["reference_answer"])
    assert train[0]["prompt_id"].startswith("q-")


def test_the_same_configuration_gives_the_same_questions_and_another_seed_others(tmp_path: Path) -> None:
    family = [{"name": "chain_sum", "params": {"max_digits": 4}}]
    settings: dict[str, Any] = {"families": family, "num_train": 30, "num_heldout": 10}
    first, again = load(tmp_path / "a", **settings), load(tmp_path / "b", **settings)
    assert first == again
    other = load(tmp_path / "c", **settings, seed=1)
    assert not normalised(other["train"]) & normalised(first["train"])


def test_a_family_with_too_few_questions_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="distinct questions of chain_sum"):
        load(tmp_path, families=[{"name": "chain_sum", "params": SUMS}], num_train=300, num_heldout=0)


@pytest.mark.parametrize(
    ("family", "message"),
    [({"name": "chain_summ"}, "Did you mean chain_sum"), ({"params": {"max_terms": 1}}, "parameters")],
)
def test_a_wrong_family_is_told(tmp_path: Path, family: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, families=[family], num_train=2, num_heldout=0)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_files_of_every_kind_give_the_same_questions(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"data{suffix}", ROWS)
    found = load(tmp_path, source="file", path=str(path), num_train=8, num_heldout=4)
    reference = load(
        tmp_path, source="file", path=str(write(tmp_path / "other.jsonl", ROWS)), num_train=8, num_heldout=4
    )
    for split in ("train", "heldout"):
        assert [(r["prompt_id"], r["messages"], r["reference_answer"]) for r in found[split]] == [
            (r["prompt_id"], r["messages"], r["reference_answer"]) for r in reference[split]
        ]
    assert normalised(found["train"] + found["heldout"]) == {
        " ".join(r["question"].lower().split()) for r in ROWS
    }


def test_questions_that_differ_in_case_and_space_are_one(tmp_path: Path) -> None:
    repeated = [{"question": f"  what IS {i}\n+ {i}? ", "answer": str(2 * i)} for i in range(12)]
    path = write(tmp_path / "data.jsonl", ROWS + repeated)
    found = load(tmp_path, source="file", path=str(path), num_train=6, num_heldout=6)
    assert not normalised(found["train"]) & normalised(found["heldout"])
    with pytest.raises(InputError, match="at most 12"):
        load(tmp_path, source="file", path=str(path), num_train=7, num_heldout=6)


def test_a_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [*ROWS, {"question": "What is 3 + 3? ", "answer": "7"}])
    with pytest.raises(InputError) as caught:
        load(tmp_path, source="file", path=str(path), num_train=6, num_heldout=2)
    for part in ("data.jsonl", "What is 3 + 3?", "the answers 6 and 7", "remove a row"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="the answers 6 and 7"):
        prompts.precheck(config(source="file", path=str(path), num_train=6, num_heldout=2).prompts)


SIXES = [
    "6",
    "6.0",
    " 6 ",
    "$6$",
    r"\boxed{6}",
    r"$\boxed{6.0}$",
    "3 and 3 are 6.\n#### 6",
    "Twice 3.\n#### 6 ",
]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1,000", "1000", True),
        ("#### 1,234,567", "$1234567$", True),
        (r"\boxed{\frac{1}{2}}", r"$\frac{1}{2}$", True),
        ("1,2", "12", False),
        ("1,000,0", "10000", False),
        (r"\boxed{6}", "7", False),
        ("3 and 3 are 6.\n#### 6", "3 and 3 are 6.\n#### 7", False),
        ("", "6", False),
        ("nan", "sNaN", False),
    ],
)
def test_one_answer_written_in_two_ways_is_no_contradiction(one: str, other: str, same: bool) -> None:
    first, second = (Question("q", "What?", answer, (), "made up") for answer in (one, other))
    assert sources._contradict(first, second) is not same


def test_repeated_questions_with_equal_answers_are_counted(tmp_path: Path) -> None:
    """So are those that differ in case, which can be what is asked about."""
    more = [{"question": "What is 3 + 3?", "answer": text} for text in SIXES]
    more.append({"question": "WHAT IS 3 + 3?", "answer": "7"})
    path = write(tmp_path / "data.jsonl", ROWS + more)
    store = Store(str(tmp_path))
    ref = run_stage(LOAD, config(source="file", path=str(path), num_train=6, num_heldout=6), {}, store)
    assert store.open(ref).manifest.metrics["repeated_questions"] == len(more)


def test_two_answers_in_a_dataset_are_told_and_the_first_counts(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [*ROWS, {"question": "What is 3 + 3?", "answer": "7"}]
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "data"))
    chosen = config(source="datasets", dataset=str(tmp_path / "data"), num_train=12, num_heldout=0)
    told: list[str] = []
    store = Store(str(tmp_path))
    ref = run_stage(LOAD, chosen, {}, store, progress=lambda event: told.append(event.message))
    assert [text for text in told if "another answer" in text and "the answers 6 and 7" in text]
    answers = {r["reference_answer"] for r in store.open(ref).table("train").to_pylist()}
    assert "7" not in answers


def test_columns_ids_choices_and_messages_are_mapped(tmp_path: Path) -> None:
    rows = [{"name": f"x{i}", "text": f"Pick {i}", "gold": "B", "options": ["red", "blue"]} for i in range(3)]
    found = load(
        tmp_path, source="file", path=str(write(tmp_path / "data.jsonl", rows)), question_column="text",
        answer_column="gold", id_column="name", choices_column="options", task="choice",
        num_train=2, num_heldout=1,
        system="Be brief.", instruction="Q: {question}\nOptions:\n{choices}\nA:",
    )  # fmt: skip
    rows_found = found["train"] + found["heldout"]
    assert {row["prompt_id"] for row in rows_found} == {"x0", "x1", "x2"}
    row = next(row for row in rows_found if row["prompt_id"] == "x1")
    assert row["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: Pick 1\nOptions:\nA) red\nB) blue\nA:"},
    ]
    assert (row["choices"], row["reference_answer"], row["task"]) == (["red", "blue"], "B", "choice")


def test_braces_in_a_question_are_left_alone(tmp_path: Path) -> None:
    rows = [{"question": "Solve {choices} and {x} \\frac{1}{2}", "answer": "1"}]
    path = write(tmp_path / "data.jsonl", rows)
    found = load(
        tmp_path, source="file", path=str(path), num_train=1, num_heldout=0, instruction="{question} {y}"
    )
    assert questions(found["train"]) == ["Solve {choices} and {x} \\frac{1}{2} {y}"]


def test_the_reference_is_kept_as_given(tmp_path: Path) -> None:
    rows = [{"question": "How many?", "answer": "She has 48/2 = 24.\n#### 72"}]
    path = write(tmp_path / "data.jsonl", rows)
    found = load(tmp_path, source="file", path=str(path), num_train=1, num_heldout=0)
    assert found["train"][0]["reference_answer"] == "She has 48/2 = 24.\n#### 72"


def test_the_fingerprint_follows_the_files_content_not_its_place(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))

    def fingerprint(path: Path) -> str:
        settings: dict[str, Any] = {"source": "file", "path": str(path), "num_train": 2, "num_heldout": 0}
        return plan_stage(LOAD, config(**settings), {}, store).fingerprint

    (tmp_path / "elsewhere").mkdir()
    one = fingerprint(write(tmp_path / "data.jsonl", ROWS))
    assert fingerprint(write(tmp_path / "elsewhere" / "data.jsonl", ROWS)) == one
    assert fingerprint(write(tmp_path / "data.jsonl", ROWS[1:])) != one


def bad_file(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "data.jsonl"
    good = "".join(json.dumps(row) + "\n" for row in ROWS[:2])
    if kind == "missing file":
        return path
    if kind == "unknown kind":
        path = tmp_path / "data.txt"
    extra = {
        "empty": None,
        "missing column": '{"question": "x", "solution": "1"}\n',
        "no reference": '{"question": "x", "answer": "  "}\n',
        "null reference": '{"question": "x", "answer": null}\n',
        "torn line": '{"question": "x", "ans',
        "no object": "[1, 2]\n",
        "not text": '{"question": {"a": 1}, "answer": "1"}\n',
        "unknown kind": "",
    }[kind]
    path.write_text("" if extra is None else good + extra)
    return path


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("missing file", ["prompts.path", "exists"]),
        ("unknown kind", [".jsonl, .parquet, .csv"]),
        ("empty", ["at least one question"]),
        ("missing column", ["data.jsonl row 3", "column answer", "solution"]),
        ("no reference", ["data.jsonl row 3", "a reference answer"]),
        ("null reference", ["data.jsonl row 3", "a reference answer"]),
        ("torn line", ["data.jsonl row 3", "JSON"]),
        ("no object", ["data.jsonl row 3", "JSON object"]),
        ("not text", ["data.jsonl row 3", "column question"]),
    ],
)
def test_bad_files_are_refused_before_anything_else(tmp_path: Path, kind: str, parts: list[str]) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(InputError) as caught:
        prompts.precheck(config(source="file", path=str(path)).prompts)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_damaged_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"data\.parquet"):
        prompts.precheck(config(source="file", path=str(path)).prompts)
    broken = tmp_path / "data.csv"
    broken.write_text('question,answer\n"What is 1,2\n')
    with pytest.raises(InputError, match=r"data\.csv"):
        prompts.precheck(config(source="file", path=str(broken)).prompts)
    short = tmp_path / "short.csv"
    short.write_text("question,answer\nWhat is 1?,1\nWhat is 2?\n")
    with pytest.raises(InputError, match=r"short\.csv row 2"):
        prompts.precheck(config(source="file", path=str(short)).prompts)


def test_a_missing_file_is_told_with_the_place_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a file that exists") as caught:
        prompts.precheck(config(source="file", path="data/q.jsonl").prompts)
    assert f"looked for at {tmp_path / 'data' / 'q.jsonl'}." in str(caught.value)


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{**row, "id": "same"} for row in ROWS[:2]])
    with pytest.raises(InputError, match="row 2"):
        prompts.precheck(config(source="file", path=str(path), id_column="id").prompts)


def test_a_repeated_id_of_a_dataset_is_refused(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    same = [{**row, "id": "same"} for row in ROWS[:4]]
    datasets.Dataset.from_list(same).save_to_disk(str(tmp_path / "saved"))
    source = {"source": "datasets", "dataset": str(tmp_path / "saved"), "id_column": "id"}
    with pytest.raises(InputError, match="occurs once"):
        load(tmp_path, **source, num_train=1, num_heldout=1)


def test_a_folder_of_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    found = load(tmp_path, source="datasets", dataset=str(tmp_path / "saved"), num_train=5, num_heldout=3)
    assert len(normalised(found["train"] + found["heldout"])) == 8
    with pytest.raises(InputError, match=r"prompts\.dataset"):
        prompts.precheck(config(source="datasets", dataset=str(tmp_path / "absent")).prompts)


def test_real_prompts(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "train" / "gsm8k_train.jsonl"
    found = load(tmp_path, source="file", path=str(path), id_column="id", num_train=300, num_heldout=100)
    assert not normalised(found["train"]) & normalised(found["heldout"])
    assert len({row["prompt_id"] for rows in found.values() for row in rows}) == 400
