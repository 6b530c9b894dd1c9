"""The answer is a text that must be the reference, spaces and (by policy) case aside."""

from advdistill_core.rewards import extract
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier


class ExactVerifier(Verifier):
    """Compares texts, always at a glance."""

    def glance(self, answer: Answer) -> Graded | Part:
        found = extract.final_text(answer.text, self.policy)
        if found is None:
            return Graded("unparsed")
        wanted, given = self._plain(answer.reference), self._plain(found)
        same = given == wanted or given.rstrip(".") == wanted.rstrip(".") != ""
        return Graded("correct" if same else "wrong", found)

    def _plain(self, text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if self.policy.ignore_case else text

    def glance_reference(self, answer: Answer) -> bool | None:
        return bool(answer.reference.strip())
