"""The in-line arithmetic of a text: `a + b = c`, and whether it holds.

Rewards and behaviour figures use the same reading, so that they speak of the same equations.
"""

import re
from itertools import pairwise

# Possessive and horizontal throughout: linear in the text, and never over a line end.
_SPACE = r"[^\S\n]*+"
_NUMBER = r"[-−]?(?:\\?[$€£¥])?[-−]?(?>[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++)(?:\.[0-9]++)?+"
_SIGN = r"(?:[-−+*/×÷·]|\\times(?![a-z])|\\cdot(?![a-z])|\\div(?![a-z]))"
_SIDE = rf"{_NUMBER}(?:{_SPACE}{_SIGN}{_SPACE}{_NUMBER})*+"
# A whole run of sides is taken at once, with or without `=`: no part of it is tried again alone.
_RUN = re.compile(rf"(?<![\w.\\])({_SIDE}(?:{_SPACE}={_SPACE}{_SIDE})*+)")
_PRECEDED = re.compile(
    rf"(?:[\w)\]}}!%]{_SPACE}[-−+*/×÷·^]|[\w)\]}}]\*\*|\\(?:times|cdot|div)|\^\{{?){_SPACE}\Z|[0-9],\Z"
)
# The last side goes on: a digit group, a percentage, a mixed number, an operator and an operand.
_CONTINUED = re.compile(
    rf"[%^]|\\%|[.,]?[0-9]|{_SPACE}[0-9]+/[0-9]"
    rf"|{_SPACE}(?:[-−+/×÷·^]|\*(?!\*)|\\(?:times|cdot|div)){_SPACE}[\w(\\$]"
)
_TERM = re.compile(r"([-+*/])(-?[0-9]+(?:\.[0-9]+)?)")
_PLAIN = str.maketrans(
    {"−": "-", "×": "*", "·": "*", "÷": "/", ",": "", "\\": "", "$": "", "€": "", "£": "", "¥": ""}
)
_MAX_SIDE_CHARS = 400
_LOOK_BACK_CHARS = 8
_RELATIVE_ERROR = 1e-9  # of floating point


def equation_checks(text: str) -> list[tuple[str, bool]]:
    """The equations of a text and whether each holds.

    An equation is an expression of + - * / over decimal numbers, without brackets, and after
    `=` a number. Numbers may carry a currency sign and thousands separators. In `a = b = c`
    each pair of neighbours counts that is an equation. The number may be rounded to the decimal
    places that it shows; a whole number is taken as exact. A division by 0 does not hold.
    What is only the visible part of a longer expression is left out.

    Returns:
        Each equation in plain signs, without spaces, currency and separators (`12*2=24`).
    """
    found: list[tuple[str, bool]] = []
    if "=" not in text:
        return found
    for match in _RUN.finditer(text):
        if "=" not in match[0] or len(match[0]) > 20 * _MAX_SIDE_CHARS:
            continue
        sides = [_plain(side) for side in match[0].split("=")]
        last = len(sides) - 1
        preceded = _PRECEDED.search(text, max(0, match.start() - _LOOK_BACK_CHARS), match.start())
        continued = _CONTINUED.match(text, match.end())
        for i, (left, right) in enumerate(pairwise(sides)):
            if (i == 0 and preceded) or (i + 1 == last and continued):
                continue
            if _is_number(left) or not _is_number(right) or len(left) + len(right) > _MAX_SIDE_CHARS:
                continue
            found.append((f"{left}={right}", _holds(left, right)))
    return found


def _plain(side: str) -> str:
    for name, sign in (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/")):
        side = side.replace(name, sign)
    return "".join(side.translate(_PLAIN).split())


def _is_number(side: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", side) is not None


def _holds(left: str, right: str) -> bool:
    value = _evaluate(left)
    if value is None:
        return False
    digits = len(right.partition(".")[2])
    rounding = 0.5 * 10.0**-digits if digits else 0.0
    return abs(value - float(right)) <= rounding + _RELATIVE_ERROR * abs(value)


def _evaluate(expression: str) -> float | None:
    """The value of `1+2*3`, products first; None for a division by 0."""
    total, term = 0.0, 0.0
    for sign, number in _TERM.findall("+" + expression):
        value = float(number)
        if sign == "*":
            term *= value
        elif sign == "/":
            if value == 0:
                return None
            term /= value
        else:
            total += term
            term = -value if sign == "-" else value
    return total + term
