"""Where the final answer stands."""

import json
import time
from pathlib import Path

import pytest

from advdistill_core.config import PolicyConfig, RewardsConfig
from advdistill_core.rewards import Answer, Grader, extract
from advdistill_core.rewards.verifiers.choice import find_choice

_CASES = [f"ext-{number:02d}" for number in range(22)]


@pytest.mark.parametrize("case", _CASES)
def test_extraction_cases(shared_data: Path, case: str) -> None:
    lines = (shared_data / "verifier/extraction_cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(_CASES)
    row = next(row for row in map(json.loads, lines) if row["id"] == case)
    expected = None if row["none"] else row["expected"]
    if row["kind"] == "last_boxed":
        assert extract.last_boxed(row["text"]) == expected
    elif row["kind"] == "choice_letter":
        assert find_choice(row["text"], "ABCD") == expected
    else:
        with Grader(RewardsConfig(num_workers=1)) as grader:
            graded = grader.grade([Answer("math", row["expected"], row["text"])])[0]
        assert graded == ("correct", expected)


def test_thoughts_are_hidden() -> None:
    assert extract.visible("<think>a</think>b") == "b"
    assert extract.visible("a</think>b") == "b"  # templates open the tag in the prompt
    assert extract.visible("a<think>b") == "a"
    assert extract.visible("<think>a</think>b", ignore_think=False) == "<think>a</think>b"


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("\\boxed{10} and then \\boxed{42}", ["42"]),
        ("\\boxed{1} and \\boxed{2}", ["1", "2"]),
        ("\\(\\boxed{1}\\), \\(\\boxed{2}\\) or \\(\\boxed{3}\\)", ["1", "2", "3"]),
        ("\\boxed{\\boxed{7}}", ["7"]),
        ("$\\boxed{28}$ percent", ["28\\%"]),
        ("\\boxed{28\\%}\\%", ["28\\%"]),
        ("\\boxed{\\{1, 2\\}}", ["\\{1, 2\\}"]),
        ("\\boxed{a} \\boxed{unclosed", ["a"]),
        ("\\fbox{5}", ["5"]),
    ],
)
def test_which_boxes_count(text: str, contents: list[str]) -> None:
    found = extract.boxed_answer(text)
    assert found is not None
    assert found[0] == contents


def test_all_boxes_as_a_policy() -> None:
    found = extract.boxed_answer("\\boxed{10} and then \\boxed{42}", "all")
    assert found is not None
    assert found[0] == ["10", "42"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer> 7 </answer>", "7"),
        ("x <answer>1</answer> y <answer>2</answer> z", "2"),
        ("<answer></answer>", None),
        ("The answer is: **olleh**.", "olleh**."),
        ("just this", "just this"),
        ("  ", None),
        ("<think>so the answer is 5", None),
    ],
)
def test_final_text(text: str, expected: str | None) -> None:
    assert extract.final_text(text, PolicyConfig()) == expected


@pytest.mark.parametrize("piece", ["\\boxed{", "{", "}", "\\", "answer is ", "<think>", "####", "\\{", " "])
def test_time_is_linear_in_the_text(piece: str) -> None:
    """A glance cannot be killed, so its time is what protects the caller."""

    def seconds(count: int) -> float:
        text = piece * count
        started = time.perf_counter()
        extract.boxed_answer(text)
        extract.last_statement(text)
        extract.final_text(text, PolicyConfig())
        return time.perf_counter() - started

    small = max(min(seconds(20_000) for _ in range(3)), 1e-3)
    assert seconds(200_000) < 60 * small
