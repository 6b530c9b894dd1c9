"""Numbers are read and compared exactly, and only where they are understood in full."""

from fractions import Fraction

import pytest

from advdistill_core.rewards.exact import Number, canonical, equal_numbers, read_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-42", -42),
        ("−42", -42),
        ("+7", 7),
        ("007", 7),
        ("1,234,567", 1234567),
        ("1{,}234", 1234),
        ("1\\,234", 1234),
        ("11,\\! 111,\\! 100", 11111100),
        ("1 000 000", 1000000),
        ("3.50", Fraction(7, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1/3", Fraction(1, 3)),
        ("-10/4", Fraction(-5, 2)),
        ("\\frac{1}{3}", Fraction(1, 3)),
        ("\\dfrac{-1}{3}", Fraction(-1, 3)),
        ("-\\tfrac13", Fraction(-1, 3)),
        ("\\frac{3}{-4}", Fraction(-3, 4)),
        ("3\\frac{1}{2}", Fraction(7, 2)),
        ("-3\\frac{1}{2}", Fraction(-7, 2)),
        ("3 1/2", Fraction(7, 2)),
        ("\\$18.90", Fraction(189, 10)),
        ("$5$", 5),
        ("48^\\circ", 48),
        ("48^{\\circ}", 48),
        ("100\\text{ square units}", 100),
        ("15\\mbox{ cm}^2", 15),
        ("1.5\\times 10^{3}", 1500),
        ("2 \\cdot 10^{-3}", Fraction(1, 500)),
        ("1e3", 1000),
        ("\\left(5\\right)", None),
        ("{5}", 5),
    ],
)
def test_values(text: str, value: int | Fraction | None) -> None:
    number = read_number(text)
    assert (number.value if number else None) == value


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "x",
            "1,2",
            "1,22",
            "0,111",
            "32, 349",
            "12:30",
            "52_8",
            "1 2",
            "3 - 1",
            "2^3",
            "5!",
            "1/0",
            "\\frac{1}{0}",
        ],
        *[
            "NaN",
            "inf",
            "1e9999",
            "٤٢",
            "４２",
            "½",
            "5\\text{ million}",
            "5\\text{ dozen}",
            "4:30",
            "1.2.3",
            "--5",
            "1_000",
        ],
        *["9" * 500, "5\\text{ and }6", "2\\pi", "\\sqrt{4}", "5\\%\\%", "0x1F"],
    ],
)
def test_what_is_not_certain_is_left_to_algebra(text: str) -> None:
    assert read_number(text) is None


def test_percent_is_kept_apart() -> None:
    assert read_number("28\\%") == Number(Fraction(28), is_percent=True)
    assert read_number("12.5 %") == Number(Fraction(25, 2), is_percent=True, is_decimal=True)


@pytest.mark.parametrize(
    ("reference", "answer", "policy", "equal"),
    [
        ("28\\%", "28", "either", True),
        ("28\\%", "0.28", "either", True),
        ("0.28", "28\\%", "either", True),
        ("28\\%", "28", "fraction", False),
        ("28\\%", "0.28", "fraction", True),
        ("28\\%", "28", "number", True),
        ("28\\%", "0.28", "number", False),
        ("28\\%", "28\\%", "fraction", True),
        ("28\\%", "2.8", "either", False),
        ("1/3", "0.333333", "either", True),
        ("1/3", "0.33333", "either", False),
        ("1/3", "33.333333\\%", "either", True),
        ("0.1", "0.1000000", "either", True),
        ("0.0000001", "0.0000002", "either", False),  # equal after rounding, not equal
        ("10000000000000001", "10000000000000002", "either", False),  # equal as floats
        ("0", "0.00", "either", True),
    ],
)
def test_equality(reference: str, answer: str, policy: str, equal: bool) -> None:
    one, other = read_number(reference), read_number(answer)
    assert one is not None
    assert other is not None
    assert equal_numbers(one, other, policy) is equal


def test_decimal_places_are_a_setting() -> None:
    one, other = read_number("1/3"), read_number("0.33")
    assert one is not None
    assert other is not None
    assert equal_numbers(one, other, places=2)
    assert not equal_numbers(one, other, places=6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\dfrac{x}{2}", "\\frac{x}{ 2 }"),
        ("\\left( 1, 2 \\right]", "(1,2]"),
        ("\\text{4:30 p.m.}", "4:30 \\text{ p.m.}"),
        ("x \\le 5", "x\\leq5"),
        ("\\text{Evelyn}.", "Evelyn"),
    ],
)
def test_the_same_formula_written_differently(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1 2", "12"), ("x 3 1", "x 31"), ("x^2", "x_2"), ("(1,2)", "[1,2]")]
)
def test_different_formulas_stay_different(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)
