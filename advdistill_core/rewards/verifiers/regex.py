"""The reference is a regular expression that the whole answer must match."""

import re

from advdistill_core.rewards import extract
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier


class RegexVerifier(Verifier):
    """Matches in a worker: a pattern can take exponential time on a text made for it."""

    def glance(self, answer: Answer) -> Graded | Part:
        found = extract.final_text(answer.text, self.policy)
        return Graded("unparsed") if found is None else Part(found, found)

    def judge(self, answer: Answer, part: Part) -> Graded:
        matched = re.fullmatch(answer.reference, part.text, re.DOTALL) is not None
        return Graded("correct" if matched else "wrong", part.extracted)

    def judge_reference(self, answer: Answer) -> bool:
        re.compile(answer.reference)
        return bool(answer.reference)
