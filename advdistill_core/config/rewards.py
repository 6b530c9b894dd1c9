"""How responses are graded: the verifier's verdict and the rubric round it."""

from typing import Literal

from advdistill_core.config.base import Section, setting


class RewardsConfig(Section):
    """Weights of the rubric's parts and limits of the verifiers."""

    correct: float = setting(1.0, "Correct", "Weight of the verifier's verdict (0 or 1).", gt=0)
    format: float = setting(0.1, "Format", "Weight of having exactly the required structure (0 or 1).", ge=0)
    tags: float = setting(0.1, "Tags", "Weight of the share of tags present exactly once (0 to 1).", ge=0)
    length: float = setting(0.1, "Length", "Weight of brevity where correct (0 to 1).", ge=0)
    repetition: float = setting(0.1, "Repetition", "Weight of repeated 3-grams (0 to 1), subtracted.", ge=0)
    structure: Literal["any", "think_answer", "answer", "boxed"] = setting(
        "any", "Structure", "What a completion must look like for the format reward."
    )
    max_len: int = setting(256, "Length scale", "Tokens at which the length reward reaches 0.", ge=1)
    timeout_s: float = setting(
        5.0, "Time limit", "Seconds one answer may take to grade.", affects_result=False, gt=0, le=600
    )
    memory_bytes: int = setting(
        2 << 30, "Memory limit", "Bytes one grading process may use.", affects_result=False, ge=256 << 20
    )
    num_workers: int = setting(
        0, "Workers", "Grading processes; 0 for one per core.", affects_result=False, ge=0, le=1024
    )
    max_error_frac: float = setting(
        0.02,
        "Tolerated errors",
        "Share of answers (0 to 1) that may end in timeout or error.",
        affects_result=False,
        ge=0,
        le=1,
    )
