"""What a verifier is."""

from typing import ClassVar

from advdistill_core.config import PolicyConfig
from advdistill_core.rewards.types import Answer, Graded, Part


class Verifier:
    """Decides whether a response gives the reference answer.

    A verifier of one's own is a subclass with `judge`, named by an entry point of the
    group `advdistill.verifiers`; the entry point's name is the task. `judge` runs in a
    process with a time and a memory limit, so it may hang or crash without harm.

    Args:
        policy: the settings that say what counts as equal.
    """

    #: Modules that take long to import: loaded before the time limit of an answer starts.
    preload: ClassVar[tuple[str, ...]] = ()

    def __init__(self, policy: PolicyConfig) -> None:
        self.policy = policy

    def glance(self, answer: Answer) -> Graded | Part:
        """Decide where that is certain and cheap, else name the piece to be judged.

        Runs in the caller's process and thread: it must take time linear in the text.
        """
        return Part(answer.text)

    def judge(self, answer: Answer, part: Part) -> Graded:
        """Decide on a piece of the response. What it raises becomes the verdict `error`."""
        raise NotImplementedError

    def second_opinion(self, answer: Answer) -> Graded | None:
        """What an independent grader says of the whole response; None if there is none."""
        return None

    def glance_reference(self, answer: Answer) -> bool | None:
        """Whether the reference can be graded against; None if `judge_reference` must say."""
        return None

    def judge_reference(self, answer: Answer) -> bool:
        """Whether the reference can be graded against, e.g. parses and equals itself."""
        return bool(answer.reference.strip())
