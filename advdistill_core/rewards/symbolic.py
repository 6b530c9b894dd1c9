"""The symbolic comparison, by math-verify. Only ever imported where it can be killed.

math-verify's own time limits use signals; they are off here, since the process that runs
this has a limit of its own.
"""

import logging
import re
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Expr, UnevaluatedExpr, simplify
from sympy.core.function import AppliedUndef

from advdistill_core.config import PolicyConfig
from advdistill_core.rewards.types import Graded, Part
from advdistill_core.rewards.verifiers.math import bare

logging.getLogger("math_verify").setLevel(logging.CRITICAL)

# The parser learns a grammar's paths as it meets them: one of each common kind, once.
_COMMON_FORMS = (
    *("\\frac{1}{2}+x", "\\sqrt{34} + 3\\sqrt{10}", "99.8571, 9 \\frac{6}{7}", "(-\\infty, 1]", "x^2 - 3xy"),
    *("x = 5", "-2\\le x < 5", "\\text{even}", "2\\pi r^{2}"),
)
_DIGITS = 20
_FAR = 1e-3  # relative; far wider than any rounding that counts as equal
_BOTH = (LatexExtractionConfig(), ExprExtractionConfig())
_FORMS = {"both": _BOTH, "latex": _BOTH[:1], "text": _BOTH[1:]}
_UPRIGHT = re.compile(r"\\(?:mathrm|operatorname|rm)\s*\{\s*([ei])\s*\}")
_PERCENT = re.compile(r"\s*(?:\\?%|\bpercent|\bpct)\s*\Z")
_MARKED = re.compile(r"(?<!\\)\$|\\boxed|\\\(|\\\[")
_APPROXIMATELY = re.compile(r"\A\s*(?:\\approx|≈)\s*")
_VARIABLE = re.compile(
    r"([-+*/]|\\(?:sin|cos|tan|cot|sec|csc|log|ln)(?:\^\{?-?\d+\}?)?)[ ]+([a-zA-Z])(?=\s*(?:[-+*/=}$]|\Z))"
)


def compare(reference: str, part: Part, policy: PolicyConfig) -> Graded:
    """Grade a piece of a response against a reference.

    Raises:
        ValueError: the reference cannot be parsed (checked up front by `equals_itself`).
    """
    if part.extracted is not None:  # it stood in a box or tag: all of it is the answer
        if policy.list_order == "strict":
            wanted, given = split_list(bare(reference)), split_list(part.extracted)
            if len(wanted) > 1 and len(wanted) == len(given):
                pairs = zip(wanted, given, strict=True)
                same = all(_compare(one, _boxed(other), policy).verdict == "correct" for one, other in pairs)
                return Graded("correct" if same else "wrong", part.extracted)
        if policy.percent != "either":
            one, other = _without_percent(bare(reference), part.extracted, policy.percent)
            return _compare(one, _boxed(other), policy)._replace(extracted=part.extracted)
    return _compare(reference, part, policy)


def warm_up() -> None:
    """Let the parser and the algebra build what they build on first use."""
    policy = PolicyConfig()
    compare("x", Part("the answer is $[0, 1)$ or 3.5."), policy)
    for form in _COMMON_FORMS:
        compare(form, Part(f"\\boxed{{{form}}}", ""), policy)


def _boxed(text: str) -> Part:
    return Part(f"\\boxed{{{text}}}", text)


def _compare(reference: str, part: Part, policy: PolicyConfig) -> Graded:
    gold = _gold(reference, policy.answer_forms)
    if not gold:
        raise ValueError(f"reference {reference[:80]!r}: got nothing that parses.")
    found = _parse(part.text, "both" if part.text.startswith("\\boxed") else policy.answer_forms)
    if not found:
        return Graded("unparsed", part.extracted)
    same = not _clearly_differ(gold, found) and (_equal(gold, found, policy) or _is_variable(gold, found))
    return Graded("correct" if same else "wrong", part.extracted or _shown(found))


def split_list(text: str) -> list[str]:
    """The elements of a bare list "a, b, c"; commas inside brackets do not split."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[()\[\]{}]|(?<!\\)[,;]", text):
        mark = match.group()
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
        elif depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _without_percent(one: str, other: str, policy: str) -> tuple[str, str]:
    """Both sides in the same unit, as the policy reads a percent sign."""
    stripped = [_PERCENT.sub("", text) for text in (one, other)]
    marked = [text != short for text, short in zip((one, other), stripped, strict=True)]
    if policy == "fraction" and marked[0] != marked[1]:
        stripped = [
            f"\\frac{{{short}}}{{100}}" if mark else short
            for short, mark in zip(stripped, marked, strict=True)
        ]
    return stripped[0], stripped[1]


def _clearly_differ(gold: tuple[Any, ...], found: list[Any]) -> bool:
    """Whether both are constants whose values are far apart: spares a costly simplification."""
    one, other = gold[0], found[0]
    for value in (one, other):
        if not isinstance(value, Expr) or value.free_symbols or value.has(UnevaluatedExpr, AppliedUndef):
            return False
    one, other = one.evalf(_DIGITS), other.evalf(_DIGITS)
    if not (one.is_Float or one.is_Integer) or not (other.is_Float or other.is_Integer):
        return False
    return bool(abs(one - other) > _FAR * max(1, abs(one)))


def _is_variable(gold: tuple[Any, ...], found: list[Any]) -> bool:
    """Whether one is a variable and the other an expression that comes to it, as 2x/2 to x.

    math-verify compares a single symbol by its name only.
    """
    one, other = gold[0], found[0]
    if not (isinstance(one, Expr) and isinstance(other, Expr)) or one.is_Symbol == other.is_Symbol:
        return False
    return bool(one.free_symbols == other.free_symbols and simplify(one - other) == 0)


def equals_itself(reference: str, policy: PolicyConfig) -> bool:
    """Whether a reference parses and would be recognised as its own answer."""
    gold = _gold(reference, policy.answer_forms)
    if not gold:
        return False
    return _equal(gold, list(gold), policy)


@lru_cache(maxsize=256)
def _gold(reference: str, forms: str) -> tuple[Any, ...]:
    """Parse a reference; bare LaTeX is wrapped, as `3\\sqrt{13}` alone would be read as 3."""
    text = reference
    if "####" in text:
        text = bare(text)
    if forms != "text" and not _MARKED.search(text):
        # As LaTeX or not at all: a number somewhere in a broken formula is not the answer.
        text, forms = f"${_APPROXIMATELY.sub('', text).strip().rstrip('.,')}$", "latex"
    parsed = _parse(text, forms)
    if all(isinstance(piece, str) for piece in parsed):
        return ()
    return tuple(parsed)


def _parse(text: str, forms: str) -> list[Any]:
    # math-verify takes an upright e for a unit and drops it: 1 + 1/e would equal 1 - 1/e.
    text = _UPRIGHT.sub(r"{\1}", text)
    # And it takes the c of "a + b + c" for a unit too, unless it stands in braces.
    text = _VARIABLE.sub(r"\1{\2}", text)
    return parse(text, extraction_config=_FORMS[forms], parsing_timeout=None)  # type: ignore[no-any-return]


def _equal(gold: tuple[Any, ...], found: list[Any], policy: PolicyConfig) -> bool:
    return bool(
        verify(
            list(gold),
            found,
            float_rounding=policy.decimal_places,
            strict=policy.strict_variables,
            allow_set_relation_comp=policy.interval_equals_relation,
            timeout_seconds=None,
        )
    )


def _shown(found: list[Any]) -> str | None:
    """The text that was parsed: math-verify appends it to what it parsed."""
    return next((piece for piece in reversed(found) if isinstance(piece, str)), None)
