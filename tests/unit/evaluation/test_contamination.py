"""Planted repeats are found; clean sets raise nothing."""

import json
from pathlib import Path

import pytest

from advdistill_core.evaluation.contamination import QuestionIndex, find_all, template

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
OTHER = (
    "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"
)


@pytest.fixture
def index() -> QuestionIndex:
    return QuestionIndex([("q1", QUESTION), ("q2", OTHER)])


def found(index: QuestionIndex, text: str) -> list[tuple[str, str]]:
    return [(m.question_id, m.kind) for m in index.find("row", text)]


def test_verbatim_apart_from_case_and_space(index: QuestionIndex) -> None:
    assert found(index, "  " + QUESTION.upper().replace(" ", "\n ")) == [("q1", "exact")]


def test_changed_numbers(index: QuestionIndex) -> None:
    assert found(index, OTHER.replace("2", "17.5")) == [("q2", "template")]


def test_inside_a_teacher_response(index: QuestionIndex) -> None:
    response = f"I have seen this before: {QUESTION} The answer is 72."
    (match,) = index.find("row", response)
    assert (match.question_id, match.kind, match.covered_frac) == ("q1", "ngram", 1.0)


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not(index: QuestionIndex) -> None:
    tokens = QUESTION.split()
    assert found(index, "x " + " ".join(tokens[3:16]) + " y") == [("q1", "ngram")]
    assert found(index, "x " + " ".join(tokens[3:15]) + " y") == []


def test_a_long_run_made_of_two_questions_is_not_one(index: QuestionIndex) -> None:
    tokens, others = QUESTION.split(), OTHER.split()
    assert found(index, " ".join(tokens[:10] + others[:10])) == []


def test_another_question_is_clean(index: QuestionIndex) -> None:
    assert found(index, "Weng earns $12 an hour for babysitting. Yesterday she did 50 minutes.") == []
    assert found(index, "") == []


def test_operators_tell_short_questions_apart() -> None:
    index = QuestionIndex([("q", "What is 3 + 4?")])
    assert [m.kind for m in index.find("row", "what is 3 + 4?")] == ["exact"]
    assert index.find("row", "What is 3 - 4?") == []


def test_wording_of_a_generated_family_is_counted_and_not_reported() -> None:
    wording = "State the final answer to the following arithmetic problem, please, with care: {} + {} ="
    index = QuestionIndex([(f"q{i}", wording.format(i, i + 1)) for i in range(20)])
    assert index.find("row", wording.format(50, 60)) == []
    assert [m.question_id for m in index.find("row", wording.format(5, 6))] == ["q5"]
    assert (index.num_common_templates, index.num_questions_of_common_templates) == (1, 20)


def test_a_small_sample_of_a_family_is_told_by_the_training_prompts() -> None:
    """Sums of other lengths and operators are one family, also when few are held out."""
    wording = "State the final answer to the following arithmetic problem: {} ="
    train = [wording.format(f"{i} {'+-'[i % 2]} {i + 1}" + " + 3" * (i % 3)) for i in range(30)]
    heldout = [(f"q{i}", wording.format(f"{i} - 0 + {i}")) for i in range(40, 44)]
    index = QuestionIndex(heldout, background=train)
    assert list(find_all(index, [(str(i), text) for i, text in enumerate(train)])) == []
    assert found(index, wording.format("41 - 0 + 41")) == [("q41", "exact")]


def test_template_needs_words() -> None:
    assert template("What is 3 + 4?") == ""
    assert template("The sum of 3.5 and 1,000 is how much?") == "the sum of # and # is how much?"


def load(path: Path) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8") as file:
        return [(row["id"], row["question"]) for row in map(json.loads, file)]


def test_known_repeats_in_real_sets_are_all_found(shared_data: Path) -> None:
    known = json.loads((shared_data / "overlaps.json").read_text())["pairs"]
    for train, by_set in known.items():
        rows = load(shared_data / train)
        for evaluation, pairs in by_set.items():
            index = QuestionIndex(load(shared_data / evaluation))
            matches = {(m.row_id, m.question_id) for m in find_all(index, rows)}
            assert {tuple(pair) for pair in pairs} <= matches


def test_clean_real_sets_raise_nothing(shared_data: Path) -> None:
    rows = load(shared_data / "train/gsm8k_train.jsonl")
    assert list(find_all(QuestionIndex(load(shared_data / "eval/svamp.jsonl")), rows)) == []
    # GSM8K's own split holds four rewritten questions (same sentences, other names), no more.
    gsm8k = list(find_all(QuestionIndex(load(shared_data / "eval/gsm8k_test.jsonl")), rows))
    assert len(gsm8k) == 4
    assert {m.kind for m in gsm8k} == {"ngram"}
