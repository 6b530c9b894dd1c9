"""Plain numbers, read and compared exactly, without computer algebra.

`read_number` understands a closed grammar: integers, decimals, fractions, mixed numbers,
percent, powers of ten, thousands separators, currency and degree signs, a unit in words.
What it does not understand in full it leaves to the symbolic path: `None` never means
"not a number".
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MAX_LENGTH = 400  # characters; longer numbers go to the symbolic path
_MAX_EXPONENT = 300

_DROP = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|quad|qquad)(?![A-Za-z])|\\[!,;:> ]|~|\^\s*\\circ(?![A-Za-z])"
    r"|\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])|°"
)
_FRAC = re.compile(r"\\[dtc]frac(?![A-Za-z])")
# A unit in words after the number; words that scale or negate are not units.
_UNIT = re.compile(
    r"(?<=[\d}%\s])\s*\\(?:text|mbox|textrm|textbf|textnormal|mathrm|rm)\s*"
    r"\{\s*\\?,?\s*([A-Za-z][A-Za-z ./]*)\}\s*"
    r"(?:\^\s*(?:[23]|\{\s*[23]\s*\}))?\s*\.?$"
)
_SCALES = re.compile(
    r"\b(?:hundreds?|thousands?|millions?|billions?|trillions?|dozens?|percent\w*|pct|half|halves|quarters?|thirds?"
    r"|tenths?|hundredths?|thousandths?|and|or|base|mod|remainder|pi|e|i|a|p|am|pm|[ap]\.m\.?|r|x|c|d|m?k|[MB])\b"
)
_UNSIGNED = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+)(?:\.\d+)?|\.\d+|\d+\."
_SIGN = r"[-+]?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})\s*(?P<currency>(?:\\\$|\$|£|€)\s*)?(?P<sign2>{_SIGN})\s*(?:"
    rf"(?P<whole>\d+)\s*\\frac\{{(?P<wnum>\d+)\}}\{{(?P<wden>\d+)\}}"
    rf"|(?P<whole2>\d+)\s+(?P<wnum2>\d+)\s*/\s*(?P<wden2>\d+)"
    rf"|\\frac\{{\s*(?P<nsign>{_SIGN})\s*(?P<num>{_UNSIGNED})\s*\}}\{{\s*(?P<dsign>{_SIGN})\s*(?P<den>{_UNSIGNED})\s*\}}"
    rf"|(?P<num2>{_UNSIGNED})\s*/\s*(?P<den2>{_UNSIGNED})"
    rf"|(?P<plain>{_UNSIGNED})(?:\s*(?:\\times|\\cdot|[x×*·])\s*10\s*\^\s*(?:\{{\s*(?P<exp>{_SIGN}\d{{1,4}})\s*\}}|(?P<exp1>\d))"
    rf"|[eE](?P<exp2>{_SIGN}\d{{1,4}}))?"
    rf")\s*(?P<percent>\\?%|percent|pct)?\s*(?:\$|€|£)?",
    re.ASCII,
)
_SHORT_FRAC = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*(\{[^{}]*\})|(\{[^{}]*\})\s*(\d))(?!\d)")
_THIN = re.compile(r",\s*\\!\s*")
_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:(?:\\[,; ]|~)\d{3})+(?![\d.,])")


class Number(NamedTuple):
    """An exact value and how it was written.

    Args:
        value: what is written before any percent sign.
        is_percent: whether a percent sign follows.
        is_decimal: whether it has a decimal point, and so may be rounded.
    """

    value: Fraction
    is_percent: bool = False
    is_decimal: bool = False


@lru_cache(maxsize=4096)
def read_number(text: str) -> Number | None:
    """Read a text that is nothing but one number; None if that is not certain."""
    if len(text) > MAX_LENGTH:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        match = _NUMBER.fullmatch(_clean(text))
        if match is None:
            return None
    return _value(match.groupdict(), match.group())


def _clean(text: str) -> str:
    """Remove notation that changes no value: spacing, \\left, degree signs, a unit in words."""
    text = text.strip().replace("−", "-").replace("–", "-").replace("\u00a0", " ").replace("\u202f", " ")
    if text.startswith("$") and text.endswith("$") and len(text) > 1:
        text = text[1:-1].strip("$")
    text = _THIN.sub(",", text.strip().rstrip(".").replace("{,}", ","))
    text = _GROUPED.sub(lambda m: re.sub(r"\D", "", m.group()), text)
    unit = _UNIT.search(text)
    if unit and not _SCALES.search(unit.group(1)):
        text = text[: unit.start()]
    text = _FRAC.sub(r"\\frac", _DROP.sub(" ", text))
    text = _SHORT_FRAC.sub(_braced, text)
    if text.startswith("{") and text.endswith("}") and text.count("{") == 1:
        text = text[1:-1]
    return text.strip()


def _braced(match: re.Match[str]) -> str:
    top, bottom = (group for group in match.groups() if group)
    return r"\frac{{{}}}{{{}}}".format(top.strip("{}"), bottom.strip("{}"))


def _value(groups: dict[str, str | None], text: str) -> Number | None:
    negative = (groups["sign"] == "-") != (groups["sign2"] == "-")
    whole = groups["whole"] or groups["whole2"]
    decimal = False
    if groups["sign"] and groups["sign2"]:
        return None
    if whole:
        bottom = _unsigned(groups["wden"] or groups["wden2"])
        if not bottom:
            return None
        value = _unsigned(whole) + _unsigned(groups["wnum"] or groups["wnum2"]) / bottom
    elif groups["num"] or groups["num2"]:
        top, bottom = _unsigned(groups["num"] or groups["num2"]), _unsigned(groups["den"] or groups["den2"])
        if not bottom:
            return None
        value, decimal = top / bottom, "." in text
        negative = negative != ((groups["nsign"] == "-") != (groups["dsign"] == "-"))
    else:
        plain = groups["plain"] or ""
        value, decimal = _unsigned(plain), "." in plain
        exponent = int(groups["exp"] or groups["exp1"] or groups["exp2"] or 0)
        if abs(exponent) > _MAX_EXPONENT:
            return None
        value *= Fraction(10) ** exponent
    return Number(-value if negative else value, bool(groups["percent"]), decimal)


def _unsigned(text: str | None) -> Fraction:
    return Fraction((text or "0").replace(",", "").replace(" ", "").rstrip(".") or "0")


def equal_numbers(reference: Number, answer: Number, percent: str = "either", places: int = 6) -> bool:
    """Whether two numbers are equal under the percent policy.

    Where one is written as a decimal they are equal if both round to the same value at
    `places` digits, so that 0.333333 answers 1/3; other values must be equal exactly.

    Args:
        percent: `either` (28% is 28 and 0.28), `fraction` (0.28 only), `number` (28 only).
    """
    decimal = reference.is_decimal or answer.is_decimal
    if reference.is_percent == answer.is_percent:
        return _close(reference.value, answer.value, decimal, places)
    as_number = percent != "fraction" and _close(reference.value, answer.value, decimal, places)
    if as_number or percent == "number":
        return as_number
    return _close(_fraction_of(reference), _fraction_of(answer), decimal, places)


def _fraction_of(number: Number) -> Fraction:
    return number.value / 100 if number.is_percent else number.value


def _close(reference: Fraction, answer: Fraction, rounded: bool, places: int) -> bool:
    if reference == answer:
        return True
    if not rounded or round(reference, places) != round(answer, places):
        return False
    # Rounding says nothing about values below its last place: 1e-9 is not 2e-9.
    return reference == 0 or abs(reference - answer) * 100 <= abs(reference)


_WORDS = re.compile(r"\\(?:text|mbox|textrm|textbf|textnormal|mathrm|mathbf)\s*\{([^{}]*)\}")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\S", re.DOTALL)
_SPACED_DIGITS = re.compile(r"(?<=\d)\s+(?=\d)")
_NO_MEANING = frozenset(
    [
        r"\left",
        r"\right",
        r"\!",
        r"\,",
        r"\;",
        r"\:",
        r"\ ",
        r"\>",
        "~",
        r"\quad",
        r"\qquad",
        r"\displaystyle",
        "$",
    ]
)
_SAME = {
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\cfrac": r"\frac",
    r"\leq": r"\le",
    r"\geq": r"\ge",
    r"\lt": "<",
    r"\gt": ">",
    "−": "-",
    r"\%": "%",
    r"\cdot": r"\times",
}


@lru_cache(maxsize=512)
def canonical(text: str) -> tuple[str, ...]:
    """LaTeX tokens without those that only change how a formula looks.

    Two texts with equal tokens are the same formula; unequal tokens mean nothing.
    """
    text = _WORDS.sub(r" \1 ", text.strip()).rstrip(" .")
    text = _SPACED_DIGITS.sub(r"\\space ", text)
    return tuple(_SAME.get(token, token) for token in _TOKEN.findall(text) if token not in _NO_MEANING)
