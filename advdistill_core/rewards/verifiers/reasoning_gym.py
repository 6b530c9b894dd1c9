"""reasoning-gym's own scorers, of which only the full score counts.

A prompt keeps its family (`source` is `reasoning_gym/<family>`) and its reference answer,
not the rest of the generated item. The scorers of most families need nothing else. One
that does (a puzzle whose plan is checked against the board) cannot score its own reference
here, so its prompts are found ungradable up front instead of counting as wrong.
"""

from functools import lru_cache
from typing import Any, ClassVar

from advdistill_core.rewards import extract
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier

_PREFIX = "reasoning_gym/"


class ReasoningGymVerifier(Verifier):
    """Correct means `score_answer(...) == 1.0`; the partial credit below it is wrong.

    The library's base scorer pays for any text that contains the reference. A scorer that fails
    otherwise than on parsing the answer leaves the verdict `error`: the answer may be right.
    """

    preload: ClassVar[tuple[str, ...]] = ("reasoning_gym",)

    def glance(self, answer: Answer) -> Graded | Part:
        found = extract.final_text(answer.text, self.policy)
        if found is None:
            return Graded("unparsed")
        if found == answer.reference.strip():
            return Graded("correct", found)
        return Part(found, found)

    def judge(self, answer: Answer, part: Part) -> Graded:
        return Graded("correct" if _score(answer, part.text) == 1.0 else "wrong", part.extracted)

    def judge_reference(self, answer: Answer) -> bool:
        return answer.source.startswith(_PREFIX) and _score(answer, answer.reference) == 1.0


def _score(answer: Answer, text: str) -> float:
    item = {"question": "", "answer": answer.reference, "metadata": {}}
    try:
        return float(_dataset(answer.source.removeprefix(_PREFIX)).score_answer(answer=text, entry=item))
    except (ValueError, ArithmeticError, SyntaxError):
        if text == answer.reference:
            raise
        return 0.0  # some scorers raise on text that does not parse as an answer of their kind


@lru_cache(maxsize=128)
def _dataset(family: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(family, size=1, seed=0)
