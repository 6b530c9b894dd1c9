"""The verifiers beside `math`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from advdistill_core.config import PolicyConfig, RewardsConfig
from advdistill_core.rewards import Answer, Graded, Grader
from advdistill_core.rewards.judge import Judge
from advdistill_core.rewards.types import Part
from advdistill_core.rewards.verifiers import reasoning_gym
from advdistill_core.rewards.verifiers.choice import ChoiceVerifier
from advdistill_core.rewards.verifiers.json import equal_values, strict_loads

from .hostile_cases import OUTLIVE_THE_PARENT, PRLIMIT_OF_THE_PARENT

CHOICES = ("Paris", "Rome", "The river Seine", "None of the above")


@pytest.fixture(scope="module")
def grader() -> Any:
    with Grader(RewardsConfig(num_workers=1)) as made:
        yield made


def _grade(answer: Answer, **policy: Any) -> Graded:
    with Grader(RewardsConfig(num_workers=1, policy=PolicyConfig(**policy))) as made:
        return made.grade([answer])[0]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("the answer is B", "B"),
        ("**Answer:** B", "B"),
        ("Answer: b", "B"),
        ("The correct option is **(C)**", "C"),
        ("The correct answer to the question is D.", "D"),
        ("\\[ \\boxed{\\text{(A)}} \\]", "A"),
        ("The answer is \\(\\boxed{D}\\).", "D"),
        ("The answer is (B). Wait: the answer is (C).", "C"),
        ("The answer is:\nC. The river Seine", "C"),
        ("B. Rome", "B"),
        ("(B)", "B"),
        ("It is B", "B"),
        ("<answer>C</answer>", "C"),
        ("<think>The answer is A</think>The answer is B", "B"),
        ("The answer is Rome.", "B"),
        ("It must be the river seine", "C"),
        ("The closest statement is (D), I believe.", "D"),
        ("The answer is (A) and (B).", "A, B"),
        ("The answer is A dog", None),
        ("The answer is I think unclear", None),
        ("Let's check each option:\n\nA. Paris is large.\n\nB. Rome is", None),
        (
            "A is wrong, B is wrong, and so is C, since nothing that was said so far fits any of these.",
            None,
        ),
        ("The answer is Q.", None),
        ("No idea", None),
        ("", None),
    ],
)
def test_choice(text: str, letter: str | None) -> None:
    verifier = ChoiceVerifier(PolicyConfig())
    for gold in "ABCD":
        graded = verifier.glance(Answer("choice", gold, text, choices=CHOICES))
        wanted = "unparsed" if letter is None else "correct" if letter == gold else "wrong"
        assert graded == Graded(wanted, letter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gold", "gradable"), [("B", True), ("(b)", True), ("Rome", True), ("E", False), ("", False)]
)
def test_choice_references(gold: str, gradable: bool) -> None:
    verifier = ChoiceVerifier(PolicyConfig())
    assert verifier.glance_reference(Answer("choice", gold, "", choices=CHOICES)) is gradable
    if gradable:
        assert verifier.glance(Answer("choice", gold, "The answer is (B)", choices=CHOICES)) == Graded(
            "correct", "B"
        )


def test_choice_on_real_outputs(shared_data: Path) -> None:
    """The published predictions, where the output makes one clear statement of its letter."""
    questions = {}
    for line in (shared_data / "eval/mmlu_pro_test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        questions[row["id"]] = tuple(row["choices"])
    verifier, agreed = ChoiceVerifier(PolicyConfig()), Counter[str]()
    for line in (
        (shared_data / "outputs/mmlu_pro_outputs_sample.jsonl").read_text(encoding="utf-8").splitlines()
    ):
        row = json.loads(line)
        answer = Answer("choice", row["gold"], row["output"], choices=questions[row["question_id"]])
        seen = verifier.glance(answer)
        agreed[row["stratum"]] += seen.extracted == row.get("published_pred")
        agreed[row["stratum"] + " of"] += 1
    assert agreed["right"] >= 416
    assert agreed["wrong"] >= 391
    assert agreed["unparsed"] >= 164


@pytest.mark.parametrize(
    ("gold", "text", "verdict"),
    [
        ("olleh", "olleh", "correct"),
        ("olleh", " OLLEH\n", "correct"),
        ("olleh", "The answer is: olleh.", "correct"),
        ("olleh", "<answer>olleh</answer>", "correct"),
        ("olleh", "ollehh", "wrong"),
        ("12", "120", "wrong"),  # reasoning-gym's base scorer would pay for it
        ("olleh", "<think>olleh", "unparsed"),
    ],
)
def test_exact(grader: Grader, gold: str, text: str, verdict: str) -> None:
    assert grader.grade([Answer("exact", gold, text)])[0].verdict == verdict


def test_exact_with_case() -> None:
    assert _grade(Answer("exact", "Ab", "ab"), ignore_case=False).verdict == "wrong"


@pytest.mark.parametrize(
    ("gold", "text", "policy", "verdict"),
    [
        ("10", "10.0", {}, "correct"),
        ("10", "10.01", {}, "wrong"),
        ("10", "10.01", {"absolute_tolerance": 0.01}, "correct"),
        ("10", "10.0100001", {"absolute_tolerance": 0.01}, "wrong"),
        ("-10", "about -10.1 m/s", {"relative_tolerance": 0.01}, "correct"),
        ("10", "-10", {"relative_tolerance": 1.0}, "wrong"),
        ("0.5", "50%", {}, "correct"),
        ("0.5", "50%", {"percent": "number"}, "wrong"),
        ("6.02e23", "it is 6.02e23", {}, "correct"),
        ("3", "NaN", {}, "unparsed"),
        ("3", "inf", {"absolute_tolerance": 1e9}, "unparsed"),
        ("3", "none", {}, "unparsed"),
        ("1/3", "we get 1/3", {}, "correct"),
        ("5", "x5y", {}, "unparsed"),
    ],
)
def test_numeric(gold: str, text: str, policy: dict[str, Any], verdict: str) -> None:
    assert _grade(Answer("numeric", gold, text), **policy).verdict == verdict


def test_regex(grader: Grader) -> None:
    items = [Answer("regex", "[a-c]+", text) for text in ("abc", "abcd", "<answer>cab</answer>", " ")]
    assert [g.verdict for g in grader.grade(items)] == ["correct", "wrong", "correct", "unparsed"]
    assert grader.check_references({"ok": Answer("regex", "a+", ""), "bad": Answer("regex", "(", "")}) == [
        "bad"
    ]


def test_json_values(grader: Grader) -> None:
    gold = '{"a": [1, true], "b": null}'
    texts = {
        '{"b": null, "a": [1.0, true]}': "correct",
        'Here:\n```json\n{"a": [1, true], "b": null}\n```\nDone.': "correct",
        '{"a": [1, 1], "b": null}': "wrong",
        '{"a": [1, true]}': "wrong",
        '{"a": [1, true], "b": null': "unparsed",
        '{"a": NaN}': "unparsed",
        '{"a": 1, "a": 1}': "unparsed",
        "[" * 5000: "unparsed",
    }
    graded = grader.grade([Answer("json", gold, text) for text in texts])
    assert [g.verdict for g in graded] == list(texts.values())


def test_json_schemas() -> None:
    schema = '{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}}'
    with Grader(RewardsConfig(num_workers=1, policy=PolicyConfig(json_reference="schema"))) as made:
        graded = made.grade([Answer("json", schema, text) for text in ('{"n": 3}', '{"n": -1}', "{}", "x")])
        assert [g.verdict for g in graded] == ["correct", "wrong", "wrong", "unparsed"]
        assert made.check_references({"bad": Answer("json", '{"type": "no such"}', "")}) == ["bad"]


def test_json_equality_keeps_booleans_apart() -> None:
    assert equal_values(1, 1.0)
    assert not equal_values(1, True)
    assert not equal_values([0], [False])
    assert not equal_values({"a": 1}, {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="twice"):
        strict_loads('{"a":1,"a":2}')


def test_reasoning_gym_pays_for_the_full_score_only() -> None:
    def item(family: str, gold: str, text: str) -> Answer:
        return Answer("reasoning_gym", gold, text, source=f"reasoning_gym/{family}")

    items = [
        item("letter_counting", "12", "<answer>12</answer>"),
        item("letter_counting", "12", "<answer>120</answer>"),  # the base scorer gives 0.67
        item("chain_sum", "1000", "<answer>+01,000.00</answer>"),
        item("prime_factorization", "2 × 3", "<answer>no idea</answer>"),  # this scorer raises
        item("chain_sum", "7", "The answer is 7"),
        item("chain_sum", "7", ""),
    ]
    with Grader(RewardsConfig(num_workers=1, timeout_s=20)) as made:
        verdicts = [g.verdict for g in made.grade(items)]
        # A plan that is checked against the puzzle cannot be scored from the reference alone.
        bad = made.check_references(
            {
                "sum": item("chain_sum", "7", ""),
                "no family": item("no_such_family", "7", ""),
                "no source": Answer("reasoning_gym", "7", "", source="file"),
            }
        )
    assert verdicts == ["correct", "wrong", "correct", "wrong", "correct", "unparsed"]
    assert bad == ["no family", "no source"]


@pytest.mark.parametrize(
    ("raised", "verdict"),
    [(ValueError, "wrong"), (ZeroDivisionError, "wrong"), (TypeError, "error"), (KeyError, "error")],
)
def test_a_scorer_that_breaks_says_nothing_about_the_answer(
    raised: type[Exception], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scorer:
        def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
            raise raised("no")

    monkeypatch.setattr(reasoning_gym, "_dataset", lambda family: Scorer())
    answer = Answer("reasoning_gym", "7", "8", source="reasoning_gym/chain_sum")
    assert Judge(PolicyConfig()).judge(answer, Part("8", "8")).verdict == verdict


CODE = {
    "right": ("def f(x):\n    return x + 1", "assert f(1) == 2", "correct"),
    "wrong": ("def f(x):\n    return x", "assert f(1) == 2", "wrong"),
    "leaves early": ("import os\nos._exit(0)", "assert False", "wrong"),
    "exits": ("import sys\nsys.exit(0)", "assert False", "wrong"),
    "no network": (
        "import socket\ntry:\n    socket.socket()\nexcept PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no files": (
        "try:\n    open('{marker}', 'w')\nexcept PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no secrets": (
        "try:\n    open('{secret}').read()\nexcept PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "a folder of its own": ("open('x', 'w').write('1')", "assert open('x').read() == '1'", "correct"),
    "no fork": (
        "import os\ntry:\n    os.fork()\nexcept PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no programs": (
        "import os\ntry:\n    os.execv('/bin/true', ['x'])\nexcept PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no signals": (
        "import os\ntry:\n    os.kill(os.getppid(), 9)\nexcept PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no limits of others": (PRLIMIT_OF_THE_PARENT, "assert ok", "correct"),
    "no other death signal": (OUTLIVE_THE_PARENT, "assert ok", "correct"),
    "own limits can be read": (
        "import resource\nok = resource.getrlimit(resource.RLIMIT_NOFILE) == (32, 32)",
        "assert ok",
        "correct",
    ),
    "no queued signals": (
        "import ctypes, os, struct\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "info = ctypes.create_string_buffer(struct.pack('iii', 0, 0, -1), 128)\n"
        "call = {'x86_64': 129, 'aarch64': 138}[os.uname().machine]\n"
        "ok = libc.syscall(call, os.getppid(), 0, info) == -1 and ctypes.get_errno() == 1",
        "assert ok",
        "correct",
    ),
    "no signals by pipes": (
        "import fcntl, os\nr, w = os.pipe()\ntry:\n    fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())\n"
        "except PermissionError:\n    ok = fcntl.fcntl(r, fcntl.F_GETFL) >= 0",
        "assert ok",
        "correct",
    ),
    "no priority of others": (
        "import os\ntry:\n    os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)\n"
        "except PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no cores of others": (
        "import os\ntry:\n    os.sched_setaffinity(os.getppid(), {0})\nexcept PermissionError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no memory": (
        "try:\n    x = bytearray(1 << 33)\nexcept MemoryError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "no large file": (
        "try:\n    f = open('y', 'wb'); f.write(bytes(1 << 24)); f.flush()\nexcept OSError:\n    ok = 1",
        "assert ok",
        "correct",
    ),
    "hangs": ("while True: pass", "assert True", "timeout"),
}


def test_code_runs_in_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    marker, secret = tmp_path / "marker", tmp_path / "secret"
    secret.write_text("x")
    items = [
        Answer(
            "python",
            tests,
            "```python\n" + code.replace("{marker}", str(marker)).replace("{secret}", str(secret)) + "\n```",
        )
        for code, tests, _ in CODE.values()
    ]
    with Grader(RewardsConfig(num_workers=2, timeout_s=4, policy=PolicyConfig(run_code=True))) as made:
        graded = made.grade(items)
    assert {n: g.verdict for n, g in zip(CODE, graded, strict=True)} == {
        n: case[2] for n, case in CODE.items()
    }
    assert not marker.exists()
    assert not list(scratch.iterdir()), "a sandbox's folder was left behind"


def test_code_is_not_run_unless_asked_for(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    item = Answer("python", "assert True", f"open({str(marker)!r}, 'w')")
    with Grader(RewardsConfig(num_workers=1)) as made:
        assert made.check_references({"p": item}) == ["p"]
        assert made.grade([item])[0].verdict == "error"
    assert not marker.exists()
