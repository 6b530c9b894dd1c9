"""In-line equations against what a reader would say of them."""

import time

import pytest

from advdistill_core.rewards.equations import equation_checks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so 3 + 4 = 7.", [("3+4=7", True)]),
        ("3 + 4 = 8", [("3+4=8", False)]),
        ("2 + 3 + 4 = 9", [("2+3+4=9", True)]),
        ("2 + 3 * 4 = 14 and 10 - 2 - 3 = 5", [("2+3*4=14", True), ("10-2-3=5", True)]),
        ("12 / 4 / 3 = 1, 1 / 0 = 5", [("12/4/3=1", True), ("1/0=5", False)]),
        ("1,200 × 2 = $2,400, then", [("1200*2=2400", True)]),
        ("$3.50 + $4 = $7.50 and \\$2 \\times 3 = \\$6", [("3.50+4=7.50", True), ("2*3=6", True)]),
        ("it is $3 \\cdot 4 = 12$", [("3*4=12", True)]),
        ("10 / 3 = 3.33 but not 10 / 3 = 3.34", [("10/3=3.33", True), ("10/3=3.34", False)]),
        ("10 / 3 = 3", [("10/3=3", False)]),
        ("-2 + -3 = -5; 2 − 5 = −3", [("-2+-3=-5", True), ("2-5=-3", True)]),
        ("<<48/2=24>>24", [("48/2=24", True)]),
        ("**3 + 4 = 7**", [("3+4=7", True)]),
        ("- 3 + 4 = 7\n- 5 + 5 = 10\n- 1", [("3+4=7", True), ("5+5=10", True)]),
        ("1+1=2,2+2=4", []),  # 2,2 may be one number
        ("total = 3 + 4 = 7", [("3+4=7", True)]),
        ("2 + 3 = 5 + 4 = 9", [("5+4=9", True)]),
        ("1/2 + 1/4 = 3/4, 7/2 = 3 1/2, 1/4 = 25%", []),
        ("5 = 5, x + 3 = 7, v1.2+3 = 4, 2x * 3 = 6, 12 = 3 * 4", []),
        ("2**3 + 1 = 9, 2^3 + 1 = 9, 3! + 1 = 7, (2 + 3) * 4 + 1 = 21", []),
        ("3 + 4 = 7x + 1, 3 + 4 = 5 * x, 3 + 4 = 2 * (3 + 1)", [("3+4=7", True)]),
    ],
)
def test_equations(text: str, expected: list[tuple[str, bool]]) -> None:
    assert equation_checks(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "1 + " * 100_000 + "=",
        "1" * 300_000 + " = 1",
        "1 " * 100_000 + "=",
        "1" + " " * 300_000 + "=",
        "1,000" * 60_000 + "=",
        "1 = " * 80_000,
        "1+1=2" + ",2+2=4" * 40_000,
        "1." * 100_000 + "=",
        "$-" * 100_000 + "1=",
        "1+1=" + "9" * 300_000,
    ],
)
def test_time_grows_with_the_length_only(text: str) -> None:
    started = time.process_time()
    equation_checks(text)
    assert time.process_time() - started < 3  # quadratic would be minutes
