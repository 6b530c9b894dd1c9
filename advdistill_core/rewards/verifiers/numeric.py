"""The answer is a number within a tolerance of the reference, in exact arithmetic."""

import re
from fractions import Fraction

from advdistill_core.rewards import extract
from advdistill_core.rewards.exact import Number, read_number
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier

_TOKEN = re.compile(
    r"(?<![\w.])[-+−]?(?:\$\s?)?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"(?:[eE][-+]?\d{1,4}(?!\w)|\s*/\s*\d+(?![\w.]))?(?:\s*\\?%)?",
    re.ASCII,
)


class NumericVerifier(Verifier):
    """Grades numbers, always at a glance.

    The answer is equal if |answer - reference| <= max(absolute_tolerance,
    relative_tolerance * |reference|). NaN and infinities are no numbers.
    """

    def glance(self, answer: Answer) -> Graded | Part:
        wanted = read_number(answer.reference.strip())
        found = extract.final_text(answer.text, self.policy)
        if found is None or wanted is None:
            return Graded("unparsed")
        given, shown = read_number(found), found
        if given is None:
            tokens = _TOKEN.findall(found, max(0, len(found) - 2000))
            if not tokens:
                return Graded("unparsed")
            shown = tokens[-1]
            given = read_number(shown)
        if given is None:
            return Graded("unparsed")
        return Graded("correct" if self._within(wanted, given) else "wrong", shown)

    def _within(self, wanted: Number, given: Number) -> bool:
        tolerance = max(
            Fraction(str(self.policy.absolute_tolerance)),
            Fraction(str(self.policy.relative_tolerance)) * abs(wanted.value),
        )
        values = [given.value]
        if wanted.is_percent != given.is_percent:
            as_fraction = given.value / 100 if given.is_percent else given.value * 100
            policy = self.policy.percent
            values = {
                "either": [given.value, as_fraction],
                "number": [given.value],
                "fraction": [as_fraction],
            }[policy]
        return any(abs(value - wanted.value) <= tolerance for value in values)

    def glance_reference(self, answer: Answer) -> bool | None:
        return read_number(answer.reference.strip()) is not None
