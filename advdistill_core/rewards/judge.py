"""One object that grades any answer, used alike in the caller's process and in the workers."""

from advdistill_core.config import PolicyConfig
from advdistill_core.errors import InputError
from advdistill_core.rewards import registry
from advdistill_core.rewards.types import UNDECIDED, VERDICTS, Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier


class Judge:
    """The verifiers of one policy, made when a task first needs them."""

    def __init__(self, policy: PolicyConfig) -> None:
        self.policy = policy
        self._verifiers: dict[str, Verifier] = {}

    def verifier(self, task: str) -> Verifier:
        """The verifier of a task.

        Raises:
            InputError: there is none.
        """
        found = self._verifiers.get(task)
        if found is None:
            found = self._verifiers[task] = registry.make(task, self.policy)
        return found

    def glance(self, answer: Answer) -> Graded | Part:
        """The verdict, if it is certain at once, else the piece that must be judged.

        A truncated response is wrong whatever it says, so nothing of it is judged; of one on which
        the verifier failed nothing is known.
        """
        verifier = self.verifier(answer.task)
        try:
            seen = verifier.glance(answer)
            if not isinstance(seen, Part):
                seen = _checked(seen, "glance", "a Graded or a Part")
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - becomes a status, not a number
            return _failed(error)
        failed = isinstance(seen, Graded) and seen.verdict in UNDECIDED
        if not answer.truncated or failed or seen == Graded("unparsed"):
            return seen
        return Graded("wrong", seen.extracted)

    def judge(self, answer: Answer, part: Part) -> Graded:
        """The verdict on a piece. An exception is the verdict `error`, never `wrong`."""
        try:
            return _checked(self.verifier(answer.task).judge(answer, part), "judge", "a Graded")
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - becomes a status, not a number
            return _failed(error)

    def has_second_opinion(self, task: str) -> bool:
        return type(self.verifier(task)).second_opinion is not Verifier.second_opinion

    def second_opinion(self, answer: Answer) -> Graded:
        try:
            found = self.verifier(answer.task).second_opinion(answer)
            return _checked(found, "second_opinion", "a Graded or None") if found else Graded("error")
        except Exception as error:  # noqa: BLE001 - no opinion
            return Graded("error", type(error).__name__)

    def judge_reference(self, answer: Answer) -> bool:
        try:
            return self.verifier(answer.task).judge_reference(answer)
        except InputError:
            raise
        except Exception:  # noqa: BLE001 - a reference that cannot be read is ungradable
            return False


def _failed(error: Exception) -> Graded:
    return Graded("error", f"{type(error).__name__}: {error}"[:200])


def _checked(found: object, method: str, expected: str) -> Graded:
    """What a verifier returned, if it is a verdict; else the verdict `error`, which says so."""
    if not isinstance(found, Graded):
        return Graded("error", f"{method} returned {found!r}, expected {expected}"[:200])
    if found.verdict not in VERDICTS or not isinstance(found.extracted, str | None):
        return Graded("error", f"{method} returned {found!r}, expected a verdict and a text or None"[:200])
    return found
