"""Mathematical answers, through the grader."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from advdistill_core.config import PolicyConfig, RewardsConfig
from advdistill_core.rewards import Answer, Graded, Grader, Part
from advdistill_core.rewards.verifiers.math import MathVerifier


@pytest.fixture(scope="module")
def grader() -> Any:
    with Grader(RewardsConfig(num_workers=1)) as made:
        yield made


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _verdict(grader: Grader, gold: str, text: str) -> str:
    return grader.grade([Answer("math", gold, text)])[0].verdict


@pytest.mark.parametrize(
    ("gold", "text", "verdict"),
    [
        ("18", "9 * 2 = $<<9*2=18>>18\nA: 18", "correct"),
        ("18", "... #### 18", "correct"),
        ("She has 4.\n#### 18", "\\boxed{18}", "correct"),
        ("1234", "#### 1,234", "correct"),
        ("72", "The answer is 72.", "correct"),
        ("72", "The answer is 7. Wait, no. The answer is 72", "correct"),
        ("72", "\\boxed{7}. Hmm, no: the answer is 72.", "correct"),
        ("72", "To answer this, take 5 apples: 5 + 67 = 72", "correct"),
        ("42", "12 + 30 = 42", "correct"),
        ("42", "12 + 30 = 43", "wrong"),
        ("-5", "so x is -5", "correct"),
        ("5", "so x is -5", "wrong"),
        ("13", "16 - 3", "correct"),
        ("42", "<think>\\boxed{42}</think>\\boxed{41}", "wrong"),
        ("42", "<think>it is 42", "unparsed"),
        ("42", "I do not know", "unparsed"),
        ("42", "", "unparsed"),
        ("42", "\\boxed{}", "unparsed"),
        ("42", "\\boxed{10} and then \\boxed{42}", "correct"),
        ("\\{1,2\\}", "\\boxed{1} and \\boxed{2}", "correct"),
        ("[0,1)", "\\boxed{[0, 1)}", "correct"),
        ("[0,1)", "\\boxed{(0, 1)}", "wrong"),
        ("3\\sqrt{13}", "\\boxed{\\sqrt{117}}", "correct"),
        ("3\\sqrt{13}", "\\boxed{3}", "wrong"),  # math-verify reads the bare reference as 3
        ("10, 4, 2", "\\boxed{2, 4, 10}", "correct"),
        ("x", "\\boxed{\\frac{2x}{2}}", "correct"),  # math-verify compares a symbol by name
        ("1-\\frac{1}{\\mathrm{e}}", "\\boxed{1+\\frac{1}{\\mathrm{e}}}", "wrong"),
        ("\\text{4:30 p.m.}", "\\boxed{4:30 \\text{ p.m.}}", "correct"),
        ("10{,}000", "\\boxed{10000}", "correct"),
        ("1234", "\\boxed{1\\,234}", "correct"),
        ("12\\frac{3}{5}", "\\boxed{12.6}", "correct"),
        ("25\\%", "\\boxed{25}", "correct"),
        ("100\\text{ square units}", "\\boxed{100}", "correct"),
        ("C", "\\boxed{\\text{(C)}}", "correct"),
        ("a + b + c", "\\boxed{c + b + a}", "correct"),
        ("a + b + c", "\\boxed{a + c}", "wrong"),  # math-verify drops " c" as a unit
        ("\\sin^2 t", "\\boxed{1 - \\cos^2 t}", "correct"),
    ],
)
def test_verdicts(grader: Grader, gold: str, text: str, verdict: str) -> None:
    assert _verdict(grader, gold, text) == verdict


@pytest.mark.parametrize(
    ("policy", "gold", "text", "verdict"),
    [
        ({"require_boxed": True}, "42", "The answer is 42.", "unparsed"),
        ({"require_boxed": True}, "42", "\\boxed{42}", "correct"),
        ({"boxes": "all"}, "42", "\\boxed{10} and then \\boxed{42}", "wrong"),
        ({"ignore_think": False}, "42", "<think>\\boxed{42}</think> done", "correct"),
        ({"percent": "fraction"}, "28\\%", "\\boxed{28}", "wrong"),
        ({"percent": "number"}, "28\\%", "\\boxed{0.28}", "wrong"),
        ({"percent": "fraction"}, "x\\%", "\\boxed{x}", "wrong"),
        ({"percent": "number"}, "x\\%", "\\boxed{x}", "correct"),
        ({"list_order": "strict"}, "1, 2", "\\boxed{2, 1}", "wrong"),
        ({"list_order": "strict"}, "1, 2", "\\boxed{1, 2}", "correct"),
        ({"list_order": "strict"}, "x+1, \\frac{1}{2}", "\\boxed{1+x, 0.5}", "correct"),
        ({"list_order": "free"}, "1, 2", "\\boxed{2, 1}", "correct"),
        ({"decimal_places": 2}, "\\frac{1}{3}", "\\boxed{0.33}", "correct"),
        ({"interval_equals_relation": True}, "x \\in [-2,7]", "\\boxed{-2 \\le x \\le 7}", "correct"),
        ({"strict_variables": False}, "f(x)", "\\boxed{f(y)}", "correct"),
    ],
)
def test_policies(policy: dict[str, Any], gold: str, text: str, verdict: str) -> None:
    with Grader(RewardsConfig(num_workers=1, policy=PolicyConfig(**policy))) as made:
        assert _verdict(made, gold, text) == verdict


def test_pairs_of_math_verify(shared_data: Path) -> None:
    """Each pair under the settings that upstream tests it with."""
    rows = [json.loads(line) for line in _lines(shared_data / "verifier/pairs_math_verify.jsonl")]
    by_policy: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_policy[json.dumps(pair_policy(row))].append(row)
    misses = []
    for policy, members in by_policy.items():
        with Grader(RewardsConfig(policy=PolicyConfig(**json.loads(policy)))) as made:
            graded = made.grade([Answer("math", row["gold"], row["prediction"]) for row in members])
        misses += [
            r["id"] for r, g in zip(members, graded, strict=True) if (g.verdict == "correct") != r["expected"]
        ]
    assert len(rows) == 260
    assert misses == ["mv-255"], "1 - 1/e is not 1 + 1/e, whatever upstream expects"


def pair_policy(row: dict[str, Any]) -> dict[str, Any]:
    """The settings that stand for an upstream test's own configuration."""
    forms = {("latex",): "latex", ("expr",): "text"}
    options = row.get("options", {})
    names = {
        "precision": "decimal_places",
        "strict": "strict_variables",
        "allow_set_relation_comp": "interval_equals_relation",
    }
    return {
        "answer_forms": forms.get(tuple(row.get("match_types") or ()), "both"),
        **{names[key]: value for key, value in options.items()},
    }


def test_references_are_checked_up_front(grader: Grader) -> None:
    golds = {
        "a": "18",
        "b": "",
        "c": "3\\sqrt{13}",
        "d": "   ",
        "e": "\\frac{1}{",
        "f": "1, 2",
        "g": "\\text{Evelyn}",
    }
    bad = grader.check_references({key: Answer("math", gold, "") for key, gold in golds.items()})
    assert bad == ["b", "d", "e"]


def test_every_math_reference_can_be_graded(shared_data: Path, grader: Grader) -> None:
    rows = [json.loads(line) for line in _lines(shared_data / "eval/math500.jsonl")]
    golds = {row["id"]: Answer("math", row["answer"], "") for row in rows}
    assert grader.check_references(golds) == []
    boxed = [Answer("math", row["answer"], f"\\boxed{{{row['answer']}}}") for row in rows]
    assert {graded.verdict for graded in grader.grade(boxed)} == {"correct"}


def test_a_truncated_response_is_wrong_and_is_not_judged(grader: Grader) -> None:
    answer = Answer("math", "1", "\\boxed{9^{9^{9^9}}}", truncated=True)
    assert grader.grade([answer])[0] == Graded("wrong", "9^{9^{9^9}}")
    assert grader.grade([Answer("math", "1", "\\boxed{1}", truncated=True)])[0].verdict == "wrong"


def test_only_what_both_sides_understand_is_decided_at_a_glance() -> None:
    verifier = MathVerifier(PolicyConfig())
    assert isinstance(verifier.glance(Answer("math", "2", "\\boxed{\\sqrt{4}}")), Part)
    assert isinstance(verifier.glance(Answer("math", "\\sqrt{4}", "\\boxed{2}")), Part)
    assert verifier.glance(Answer("math", "2", "\\boxed{3}")) == Graded("wrong", "3")


def test_equal_answers_are_judged_once(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    run = grader.pool.run
    monkeypatch.setattr(
        grader.pool, "run", lambda jobs, modules=(): counted.append(len(jobs)) or run(jobs, modules)
    )
    item = Answer("math", "q+q", "hence \\boxed{2q}")
    graded = grader.grade([item, item._replace(text="so \\boxed{2q}"), item])
    assert [g.verdict for g in graded] == ["correct"] * 3
    grader.grade([item])
    assert counted == [1]
