"""Properties of the verifiers: of notation, of order, of batches, of repetition."""

import random
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advdistill_core.config import PolicyConfig, RewardsConfig
from advdistill_core.rewards import VERDICTS, Answer, Graded, Grader, extract
from advdistill_core.rewards.exact import equal_numbers, read_number
from advdistill_core.rewards.judge import Judge

sys.path.insert(0, str(Path(__file__).parent))
import fuzz_verifiers

JUDGE = Judge(PolicyConfig())
WHOLE = st.integers(-(10**12), 10**12)
POSITIVE = st.integers(1, 10**6)
TEXT = st.text(max_size=300) | st.lists(st.sampled_from(fuzz_verifiers.TOKENS), max_size=40).map("".join)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(RewardsConfig(num_workers=2, timeout_s=10)) as made:
        yield made


def _with_separators(value: int, separator: str) -> str:
    return f"{value:,}".replace(",", separator)


@given(WHOLE, st.data())
def test_whole_numbers_agree_in_every_notation(value: int, data: st.DataObject) -> None:
    forms = [
        str(value),
        f"{value}.",
        f"{value}.0",
        f"${value}$",
        f"{value}\\text{{ apples}}",
        f"{value}^\\circ",
        f"\\frac{{{value}}}{{1}}",
        f"\\dfrac{{{value * 3}}}{{3}}",
        f"{value * 2}/2",
        f"{value}00\\%",
        _with_separators(value, ","),
        _with_separators(value, "{,}"),
        _with_separators(value, "\\,"),
        _with_separators(value, ",\\!"),
        str(value).replace("-", "−"),
    ]
    one, other = data.draw(st.sampled_from(forms)), data.draw(st.sampled_from(forms))
    a, b = read_number(one), read_number(other)
    assert a is not None, one
    assert b is not None, other
    assert equal_numbers(a, b, "fraction"), (one, other)
    answer = Answer("math", one, f"so \\boxed{{{other}}}")
    assert JUDGE.glance(answer)[0] == "correct"
    off = read_number(str(value + 1))
    assert off is not None
    assert not equal_numbers(a, off, "fraction")


@given(st.integers(0, 10**6), POSITIVE, POSITIVE, st.booleans())
def test_fractions_agree_in_every_notation(whole: int, top: int, bottom: int, negative: bool) -> None:
    top %= bottom
    sign = "-" if negative else ""
    value = (-1 if negative else 1) * (whole + Fraction(top, bottom))
    forms = [
        f"{sign}{whole * bottom + top}/{bottom}",
        f"{sign}\\frac{{{whole * bottom + top}}}{{{bottom}}}",
        f"\\dfrac{{{sign}{whole * bottom + top}}}{{{bottom}}}",
        f"{sign}{whole}\\frac{{{top}}}{{{bottom}}}",
        f"{sign}{whole} {top}/{bottom}",
        f"\\tfrac{{{(whole * bottom + top) * 7}}}{{{'-' if negative else ''}{bottom * 7}}}",
    ]
    for form in forms:
        number = read_number(form)
        assert number is not None, form
        assert number.value == value, form


@given(st.decimals(-(10**9), 10**9, places=4))
def test_decimals_agree_with_their_fraction(value: object) -> None:
    exact = Fraction(str(value))
    decimal, fraction = read_number(f"{value:f}"), read_number(f"{exact.numerator}/{exact.denominator}")
    assert decimal is not None
    assert fraction is not None
    assert decimal.value == fraction.value
    assert equal_numbers(fraction, decimal)


@given(WHOLE, WHOLE, POSITIVE, POSITIVE)
def test_numbers_are_equal_exactly_when_they_are(a: int, b: int, c: int, d: int) -> None:
    """No rounding, no float: equality of fractions is cross multiplication."""
    one, other = read_number(f"{a}/{c}"), read_number(f"{b}/{d}")
    assert one is not None
    assert other is not None
    assert equal_numbers(one, other) == (a * d == b * c)
    assert equal_numbers(one, other) == equal_numbers(other, one)


@given(TEXT)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_gets_the_same_verdict_twice(text: str) -> None:
    for task in fuzz_verifiers.TASKS:
        answer = Answer(task, "7", text, choices=("1", "2"), source="reasoning_gym/gcd")
        fuzz_verifiers.check_glance(JUDGE, answer)


@given(TEXT)
def test_a_box_is_found_again_in_a_box(text: str) -> None:
    """Extraction is idempotent: what was extracted, boxed, is extracted again."""
    found = extract.boxed_answer(text)
    if found is None or len(found[0]) != 1:
        return
    again = extract.boxed_answer(f"\\boxed{{{found[0][0]}}}")
    assert again is not None
    assert again[0][0].strip() == found[0][0].strip()


@given(TEXT, TEXT)
def test_what_stands_in_thoughts_changes_nothing(thought: str, rest: str) -> None:
    thought = thought.replace("<think>", "").replace("</think>", "")
    rest = rest.replace("<think>", "").replace("</think>", "")
    for task in ("math", "choice", "numeric", "exact"):
        plain = JUDGE.glance(Answer(task, "7", rest, choices=("1", "2")))
        assert JUDGE.glance(Answer(task, "7", f"<think>{thought}</think>{rest}", choices=("1", "2"))) == plain


MIXED = [
    Answer("math", gold, text)
    for gold in ("\\frac{1}{2}", "x+1", "7", "\\{1,2\\}", "[0,1)", "\\sqrt{2}")
    for text in (
        *[
            "\\boxed{0.5}",
            "\\boxed{1+x}",
            "A: 7",
            "\\boxed{2, 1}",
            "\\boxed{[0, 1)}",
            "\\boxed{\\frac{2}{\\sqrt{2}}}",
        ],
        *[
            "no",
            "\\boxed{x",
            "the answer is $x+1$, I think",
            "3 + 4",
            "<think>7",
            "\\boxed{\\frac{\\sqrt 8}{2}}",
        ],
    )
]


def test_verdicts_do_not_depend_on_order_batch_or_worker(grader: Grader) -> None:
    expected = dict(zip(MIXED, grader.grade(MIXED), strict=True))
    assert len({graded.verdict for graded in expected.values()}) >= 3
    rng = random.Random(0)
    for num_workers, size in ((1, 1), (2, 7), (2, len(MIXED))):
        shuffled = rng.sample(MIXED, len(MIXED))
        with Grader(RewardsConfig(num_workers=num_workers, timeout_s=10)) as fresh:
            graded: list[Graded] = []
            for start in range(0, len(shuffled), size):
                graded += fresh.grade(shuffled[start : start + size])
        assert dict(zip(shuffled, graded, strict=True)) == expected


def test_large_batches_are_spread_and_give_the_same(grader: Grader) -> None:
    """From some size on the workers take the glance as well."""
    many = MIXED * 60
    small = dict(zip(MIXED, grader.grade(MIXED), strict=True))
    with Grader(RewardsConfig(num_workers=2, timeout_s=10)) as fresh:
        assert fresh.grade(many) == [small[item] for item in many]


def test_every_verdict_is_known(grader: Grader) -> None:
    assert {graded.verdict for graded in grader.grade(MIXED)} <= set(VERDICTS)


def test_fuzzing_for_a_few_seconds() -> None:
    """The long run is `python tests/property/fuzz_verifiers.py --seconds 600`."""
    counts = fuzz_verifiers.fuzz(8, seed=7, seeds=fuzz_verifiers.SEEDS, pool_every=200)
    assert counts["glanced"] > 500
