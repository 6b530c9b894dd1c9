"""Mathematical answers: numbers exactly and at once, all else by math-verify.

Where the answer stands, in this order: `<answer>` tags; the last box, unless an explicit
"answer is" follows it; the last `####`; the last "answer is", "answer:" or "A:"; the last
number or formula of the text.
"""

import re
from typing import ClassVar

from advdistill_core.rewards import extract
from advdistill_core.rewards.exact import canonical, equal_numbers, read_number
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier

_TAIL_CHARS = 20_000  # an unboxed answer further from the end is no final answer
_MAX_FAST_CHARS = 2_000
_END_CHARS = 200

_PLAIN = r"-?(?:\$\s?)?-?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*\\?%)?"
_AT_END = re.compile(rf"({_PLAIN})[\s.*]*\Z", re.ASCII)
_STATED = re.compile(rf"[\s*]*({_PLAIN})[\s.*]*\Z", re.ASCII)
# What may stand before a final number; anything else could make it part of an expression.
_BEFORE = re.compile(r"(?:\A|=[ \t]*|[A-Za-z:;,.!?][ \t]+|\n)\s*\Z", re.ASCII)
_OPERATOR_WORD = re.compile(r"\b(?:to|and|or|x|X|by|over|of)\s*\Z|[\d)]\s*[,:;]\s*\Z", re.ASCII)


class MathVerifier(Verifier):
    """Grades numbers, formulas, sets, intervals and equations."""

    preload: ClassVar[tuple[str, ...]] = ("advdistill_core.rewards.symbolic",)

    def glance(self, answer: Answer) -> Graded | Part:
        text = extract.visible(answer.text, self.policy.ignore_think)
        tagged = extract.in_answer_tags(text)
        text = text if tagged is None else tagged
        boxed = extract.boxed_answer(text, self.policy.boxes)
        if boxed is not None:
            contents, end = boxed
            if self.policy.require_boxed or extract.last_statement(text, end) is None:
                return self._boxed(answer.reference, contents)
        elif self.policy.require_boxed:
            return Graded("unparsed")
        if not text.strip():
            return Graded("unparsed")
        return self._unboxed(answer.reference, text, boxed is not None)

    def _boxed(self, reference: str, contents: list[str]) -> Graded | Part:
        if not any(content.strip() for content in contents):
            return Graded("unparsed")
        if len(contents) == 1:
            content = contents[0].strip()
            return self._compare(reference, content) or Part(f"\\boxed{{{content}}}", content)
        joined = ", ".join(content.strip() for content in contents)
        return Part(f"\\boxed{{{joined}}}", joined)

    def _unboxed(self, reference: str, text: str, has_box: bool) -> Graded | Part:
        found = None if has_box else extract.after_hashes(text)
        if found is not None:
            return self._compare(reference, found) or Part(f"${found}$", found)
        stated = extract.last_statement(text)
        if self.policy.answer_forms != "latex":
            found = _clear_number(text, stated)
            graded = None if found is None else self._compare(reference, found)
            if graded is not None:
                return graded
        start = stated[0] if stated else max(0, len(text) - _TAIL_CHARS)
        return Part(text[start : start + _TAIL_CHARS])

    def _compare(self, reference: str, content: str) -> Graded | None:
        """Decide where both sides are understood in full, or are the same formula."""
        if len(content) > _MAX_FAST_CHARS:
            return None
        wanted, given = read_number(bare(reference)), read_number(content)
        if wanted is not None and given is not None:
            same = equal_numbers(wanted, given, self.policy.percent, self.policy.decimal_places)
            return Graded("correct" if same else "wrong", content)
        if wanted is None and given is None and canonical(bare(reference)) == canonical(content):
            return Graded("correct", content)
        return None

    def judge(self, answer: Answer, part: Part) -> Graded:
        from advdistill_core.rewards.symbolic import compare

        return compare(answer.reference, part, self.policy)

    def second_opinion(self, answer: Answer) -> Graded | None:
        from advdistill_core.rewards.symbolic import compare

        return compare(answer.reference, Part(extract.visible(answer.text)), self.policy)

    def glance_reference(self, answer: Answer) -> bool | None:
        reference = answer.reference.strip()
        if not reference:
            return False
        return True if read_number(bare(reference)) is not None else None

    def judge_reference(self, answer: Answer) -> bool:
        from advdistill_core.rewards.symbolic import equals_itself

        return equals_itself(answer.reference, self.policy)


def _clear_number(text: str, stated: tuple[int, int] | None) -> str | None:
    """A plain number that ends the text and can be nothing but the final answer."""
    if stated:
        match = _STATED.match(text, stated[1]) if len(text) - stated[1] <= _END_CHARS else None
        return match.group(1) if match else None
    tail = text[-_END_CHARS:]
    match = _AT_END.search(tail)
    if match is None or (match.start() == 0 and len(text) > _END_CHARS):  # it may start further left
        return None
    before = tail[max(0, match.start() - 20) : match.start()]
    if not _BEFORE.search(before) or _OPERATOR_WORD.search(before):
        return None
    return match.group(1)


def bare(reference: str) -> str:
    """A reference without what its data set wraps it in: `#### 18`, `\\boxed{18}`, `$18$`."""
    reference = reference.strip()
    if "####" in reference:
        reference = extract.after_hashes(reference) or reference
    if reference.startswith("\\boxed") and reference.endswith("}"):
        content = extract.last_boxed(reference)
        if content is not None and reference.count("\\boxed") == 1:
            return content.strip()
    if len(reference) > 2 and reference[0] == reference[-1] == "$" and "$" not in reference[1:-1]:
        return reference[1:-1].strip()
    return reference
