"""The parts of the reward against numbers worked out by hand, and the outranking invariant."""

import itertools
import random

import pytest
from pydantic import ValidationError

from advdistill_core.config import RewardsConfig
from advdistill_core.rewards import parts
from advdistill_core.rewards.rubric import score
from advdistill_core.store.tables import REWARD_PARTS

GOOD = "<think>2+3=5</think>\n<answer>5</answer>"


@pytest.mark.parametrize(
    ("text", "structure", "value"),
    [
        (GOOD, "think_answer", 1.0),
        (GOOD + "\n", "think_answer", 1.0),
        (GOOD + "\nAnd so on.", "think_answer", 0.0),  # a search that stops at a line end accepts it
        ("Well. " + GOOD, "think_answer", 0.0),
        (GOOD + GOOD, "think_answer", 0.0),
        ("<think></think><answer>5</answer>", "think_answer", 0.0),
        ("<think>a</think>", "think_answer", 0.0),
        ("It is <answer>5</answer>", "answer", 1.0),
        ("<answer>5</answer> so", "answer", 0.0),
        ("\\boxed{5}", "boxed", 1.0),
        ("\\boxed{5} \\boxed{6}", "boxed", 0.0),
        ("\\boxed{5", "boxed", 0.0),
        ("anything", "any", 1.0),
        (" \n", "any", 0.0),
    ],
)
def test_structure(text: str, structure: str, value: float) -> None:
    assert parts.has_structure(text, structure) == value


def test_tags_count_only_where_they_are_once() -> None:
    assert parts.tag_share(GOOD) == 1.0
    assert parts.tag_share("<think><think></think>") == 0.25
    assert parts.tag_share("") == 0.0


@pytest.mark.parametrize(
    ("num_tokens", "value"),
    [(0, 1.0), (25, 0.8535533905932737), (50, 0.5), (100, 0.0), (150, 0.0), (10**9, 0.0)],
)
def test_length_falls_and_stays_down(num_tokens: int, value: float) -> None:
    """Without the clamp the cosine would be back at 0.5 for 150 tokens, and at 1 for 200."""
    assert parts.brevity(num_tokens, 100) == pytest.approx(value, abs=1e-12)


def test_repetition() -> None:
    assert parts.repetition("a b") == 0.0
    assert parts.repetition("a b c d") == 0.0
    assert parts.repetition("a a a a a") == pytest.approx(2 / 3)  # three 3-grams, one of them new
    assert parts.repetition("A b c a B C") == pytest.approx(1 / 4)


def test_steps() -> None:
    assert parts.step_share("1. a\n2. b") == pytest.approx(2 / 3)
    assert parts.step_share("Step 1: a\nStep 2: b\nFinally, c\n- d") == 1.0
    assert parts.step_share("just text") == 0.0
    assert (
        parts.count_steps("1. add\n2) more\n- dash\nStep 3: x\nThen, we stop. 4.5 is no step\n4.5 is none")
        == 5
    )
    assert parts.count_steps("First, we add. Then we stop, and then go.") == 2


@pytest.mark.parametrize(
    ("num_tokens", "value"), [(0, 0.0), (80, 0.0), (85, -0.25), (100, -1.0), (500, -1.0)]
)
def test_overlong(num_tokens: int, value: float) -> None:
    assert parts.overlong(num_tokens, 100, 20) == pytest.approx(value)


def test_equations() -> None:
    assert parts.equation_share("2+3=5 and 2*3 = 7") == 0.5
    assert parts.equation_share("7 / 2 = 3.5") == 1.0
    assert parts.equation_share("1 + 2 + 3 = 6") == 1.0
    assert parts.equation_share("10 / 3 = 3.33, so $1,200 * 2 = $2,400") == 1.0
    assert parts.equation_share("4 / 0 = 0") == 0.0
    assert parts.equation_share("no numbers") == 0.0


def test_the_default_rubric_by_hand() -> None:
    config = RewardsConfig(structure="think_answer", max_len=100)
    values = score(config, "correct", False, GOOD, 50)
    assert values["reward"] == pytest.approx(1.0 + 0.1 + 0.1 + 0.1 * 0.5)
    wrong = score(config, "wrong", False, GOOD, 50)
    assert wrong["length"] == 0.0
    assert wrong["reward"] == pytest.approx(0.2)
    assert score(config, "correct", False, "a a a a a", 50)["reward"] == pytest.approx(1.05 - 0.1 * 2 / 3)


@pytest.mark.parametrize("verdict", ["timeout", "error"])
def test_what_is_not_known_has_no_reward(verdict: str) -> None:
    assert score(RewardsConfig(), verdict, False, GOOD, 5) == dict.fromkeys((*REWARD_PARTS, "reward"))


@pytest.mark.parametrize(
    ("verdict", "truncated"), [("unparsed", False), ("correct", True), ("unparsed", True)]
)
def test_unparsed_and_truncated_get_the_reward_of_the_wrong(verdict: str, truncated: bool) -> None:
    config = RewardsConfig()
    assert (
        score(config, verdict, truncated, GOOD, 5)["reward"]
        == score(config, "wrong", False, GOOD, 5)["reward"]
    )


@pytest.mark.parametrize(
    "weights",
    [
        {"format": 0.5, "tags": 0.4},
        {"repetition": 0.9},
        {"correct": 0.3},
        {"overlong": 0.7, "format": 0.1, "tags": 0.1, "repetition": 0.1},
        {"steps": 0.4, "equations": 0.4},
        {"correct": 0.3, "format": 0.1, "tags": 0.1, "repetition": 0.1},  # equal is not above
    ],
)
def test_a_rubric_that_could_rank_a_wrong_one_higher_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="outrank"):
        RewardsConfig(**weights)  # type: ignore[arg-type]


def test_a_penalty_that_starts_before_the_first_token_is_refused() -> None:
    with pytest.raises(ValidationError, match="overlong_tokens"):
        RewardsConfig(overlong=0.1, max_len=10, overlong_tokens=20)


def test_any_correct_response_outranks_any_wrong_one() -> None:
    """Over random accepted rubrics and the most one-sided texts."""
    rng = random.Random(0)
    texts = [GOOD, "x", "a a a a a a a a a", "1. 2+2=4\n2. 3+3=6\n3. done", "<think>", GOOD + GOOD]
    accepted = 0
    while accepted < 60:
        names = ("format", "tags", "length", "repetition", "steps", "overlong", "equations")
        try:
            config = RewardsConfig(
                max_len=50, overlong_tokens=20, **{name: rng.random() / 2 for name in names}
            )  # type: ignore[arg-type]
        except ValidationError:
            continue
        accepted += 1
        pairs = list(itertools.product(texts, (0, 30, 45, 500)))
        rewards = {
            verdict: [score(config, verdict, False, text, num_tokens)["reward"] for text, num_tokens in pairs]
            for verdict in ("correct", "wrong")
        }
        assert min(r for r in rewards["correct"] if r is not None) > max(
            r for r in rewards["wrong"] if r is not None
        )


def test_what_decides_no_verdict_is_no_identity() -> None:
    identity = RewardsConfig(num_workers=3, max_error_frac=0.5).identity()
    assert identity == RewardsConfig().identity()
    assert "policy" in identity
