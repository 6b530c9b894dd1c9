"""Verification and rewards: verdicts on responses, and the rubric that scores them."""

from advdistill_core.rewards.grader import Grader
from advdistill_core.rewards.types import UNDECIDED, VERDICTS, Answer, Graded, Part, Verdict
from advdistill_core.rewards.verifiers.base import Verifier

__all__ = ["UNDECIDED", "VERDICTS", "Answer", "Graded", "Grader", "Part", "Verdict", "Verifier"]
