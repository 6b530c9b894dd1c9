"""Generated code, judged by unit tests in a sandboxed child; off unless asked for."""

import re

from advdistill_core.rewards import extract
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier

_FENCE = re.compile(r"```(?:python|py|Python)?[ \t]*\n(.*?)```", re.DOTALL)
_SHOWN_CHARS = 500


class PythonVerifier(Verifier):
    """Correct means that the reference, code with assertions, runs through after the answer.

    The answer is the last fenced block, else the whole text. The child has no network, can
    write nowhere but in a folder that is removed, and has limits of memory, time, file
    size and processes; where the kernel cannot give that, the verdict is `error`.
    """

    def glance(self, answer: Answer) -> Graded | Part:
        text = extract.visible(answer.text, self.policy.ignore_think)
        tagged = extract.in_answer_tags(text)
        text = text if tagged is None else tagged
        fences = _FENCE.findall(text)
        code = fences[-1] if fences else text
        return Part(code, code[:_SHOWN_CHARS]) if code.strip() else Graded("unparsed")

    def judge(self, answer: Answer, part: Part) -> Graded:
        from advdistill_core.rewards.sandbox import run_tests

        if not self.policy.run_code:
            return Graded("error", "rewards.policy.run_code is off")
        return Graded("correct" if run_tests(part.text, answer.reference) else "wrong", part.extracted)

    def glance_reference(self, answer: Answer) -> bool | None:
        return None if self.policy.run_code else False

    def judge_reference(self, answer: Answer) -> bool:
        compile(answer.reference, "tests", "exec")
        return bool(answer.reference.strip())
