"""What goes into a verifier and what comes out."""

from typing import Literal, NamedTuple

#: correct and wrong are results; unparsed means no answer was found (a wrong one);
#: timeout and error mean that nothing is known: such a response has no reward.
Verdict = Literal["correct", "wrong", "unparsed", "timeout", "error"]
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "unparsed", "timeout", "error")
#: Verdicts that say nothing about the response.
UNDECIDED: frozenset[str] = frozenset({"timeout", "error"})


class Answer(NamedTuple):
    """A response to be graded.

    Args:
        task: name of the verifier.
        reference: the prompt's reference answer.
        text: the whole response.
        truncated: whether generation was cut off; such a response is wrong.
        choices: the options of a multiple-choice question, in order.
        source: where the prompt comes from, e.g. `reasoning_gym/gcd`.
    """

    task: str
    reference: str
    text: str
    truncated: bool = False
    choices: tuple[str, ...] = ()
    source: str = ""


class Graded(NamedTuple):
    """A verdict with the piece of the response that it was given on, if one was found."""

    verdict: Verdict
    extracted: str | None = None


class Part(NamedTuple):
    """The piece of a response that still has to be judged, in a process that can be killed.

    Two responses to one prompt with equal parts get the same verdict.

    Args:
        text: what to judge.
        extracted: what to report as extracted.
    """

    text: str
    extracted: str | None = None
