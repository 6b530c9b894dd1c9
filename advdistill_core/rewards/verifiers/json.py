"""The answer is JSON: the expected value, or anything that satisfies a schema."""

import json
import re
from typing import Any, ClassVar

from advdistill_core.rewards import extract
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier

_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)```", re.DOTALL)


class JsonVerifier(Verifier):
    """Compares in a worker: deep nesting and patterns of a schema are not bounded."""

    preload: ClassVar[tuple[str, ...]] = ("jsonschema",)

    def glance(self, answer: Answer) -> Graded | Part:
        text = extract.visible(answer.text, self.policy.ignore_think)
        tagged = extract.in_answer_tags(text)
        piece = text if tagged is None else tagged
        fences = _FENCE.findall(piece)
        piece = (fences[-1] if fences else piece).strip()
        return Part(piece, piece[:500]) if piece else Graded("unparsed")

    def judge(self, answer: Answer, part: Part) -> Graded:
        try:
            value = strict_loads(part.text)
        except (ValueError, RecursionError):
            return Graded("unparsed", part.extracted)
        wanted = strict_loads(answer.reference)
        if self.policy.json_reference == "schema":
            same = _validator(wanted).is_valid(value)
        else:
            same = equal_values(wanted, value)
        return Graded("correct" if same else "wrong", part.extracted)

    def judge_reference(self, answer: Answer) -> bool:
        wanted = strict_loads(answer.reference)
        if self.policy.json_reference == "schema":
            _validator(wanted)
        return True


def strict_loads(text: str) -> Any:
    """Read JSON as the standard has it: no NaN or Infinity, no key twice.

    Raises:
        ValueError: it is not JSON.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)


def equal_values(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0 but not true; keys in any order."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal_values(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal_values, one, other))
    both_numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
    return bool((both_numbers or type(one) is type(other)) and one == other)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _validator(schema: Any) -> Any:
    from jsonschema.validators import validator_for

    kind = validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)
