"""How responses are graded: the verifier's policy and limits, and the rubric round its verdict."""

from typing import Literal

from pydantic import model_validator

from advdistill_core.config.base import Section, setting
from advdistill_core.errors import InputError


class PolicyConfig(Section):
    """What counts as equal and where the answer stands, where graders in use disagree."""

    boxes: Literal["last", "all"] = setting(
        "last",
        "Boxes",
        "last: the last \\boxed{} counts (boxes joined by a comma, 'and' or 'or' are one list); "
        "all: all boxes together are one list.",
    )
    require_boxed: bool = setting(
        False, "Box required", "math: an answer outside \\boxed{} is unparsed, even where it is clear."
    )
    ignore_think: bool = setting(
        True, "Ignore thoughts", "Text inside <think> tags is no answer; an unclosed tag hides the rest."
    )
    answer_forms: Literal["both", "latex", "text"] = setting(
        "both",
        "Answer forms",
        "math, where there is no box: take LaTeX only, plain text numbers only, or both.",
    )
    percent: Literal["either", "fraction", "number"] = setting(
        "either", "Percent", "28% equals 28 and 0.28 (either), 0.28 only (fraction), or 28 only (number)."
    )
    list_order: Literal["free", "strict"] = setting(
        "free", "List order", "free: '1, 2' equals '2, 1'; strict: it does not. Tuples are always ordered."
    )
    decimal_places: int = setting(
        6, "Decimal places", "A decimal equals an exact value that rounds to it at this place.", ge=0, le=15
    )
    interval_equals_relation: bool = setting(
        False,
        "Relation for interval",
        "Whether 1 < x < 2 may answer the reference (1, 2); the other way round is always accepted.",
    )
    strict_variables: bool = setting(
        True, "Strict variables", "Whether f(x) differs from f(y); off, variables are matched by position."
    )
    ignore_case: bool = setting(True, "Ignore case", "exact: upper and lower case are the same.")
    relative_tolerance: float = setting(
        0.0,
        "Relative tolerance",
        "numeric: share of the reference (0 to 1) the answer may be off.",
        ge=0,
        le=1,
    )
    absolute_tolerance: float = setting(
        0.0, "Absolute tolerance", "numeric: how far the answer may be off, in its own unit.", ge=0
    )
    json_reference: Literal["value", "schema"] = setting(
        "value", "JSON reference", "json: the reference is the expected value, or a JSON schema to satisfy."
    )
    run_code: bool = setting(
        False,
        "Run code",
        "python: run the code that models write, in a sandboxed child. Off: such prompts are ungradable.",
    )


_ROUNDING = 1e-9  # sums of weights such as 0.1 are not exact


class RewardsConfig(Section):
    """Weights of the rubric's parts and limits of the verifiers."""

    correct: float = setting(1.0, "Correct", "Weight of the verifier's verdict (0 or 1).", gt=0)
    format: float = setting(0.1, "Format", "Weight of having exactly the required structure (0 or 1).", ge=0)
    tags: float = setting(0.1, "Tags", "Weight of the share of tags present exactly once (0 to 1).", ge=0)
    length: float = setting(0.1, "Length", "Weight of brevity where correct (0 to 1).", ge=0)
    repetition: float = setting(0.1, "Repetition", "Weight of repeated 3-grams (0 to 1), subtracted.", ge=0)
    steps: float = setting(0.0, "Steps", "Weight of visible steps, full at three (0 to 1).", ge=0)
    overlong: float = setting(
        0.0, "Overlong", "Weight of the penalty (0 to -1) over the last tokens before the length scale.", ge=0
    )
    equations: float = setting(
        0.0, "Equations", "Weight of the share of in-line equations a + b = c that hold (0 to 1).", ge=0
    )
    structure: Literal["any", "think_answer", "answer", "boxed"] = setting(
        "any", "Structure", "What a completion must look like for the format reward."
    )
    max_len: int = setting(256, "Length scale", "Tokens at which the length reward reaches 0.", ge=1)
    overlong_tokens: int = setting(
        64, "Overlong tokens", "Tokens before the length scale over which the penalty grows to -1.", ge=1
    )
    policy: PolicyConfig = setting(PolicyConfig, "Policy", "What counts as the answer and as equal.")
    timeout_s: float = setting(5.0, "Time limit", "Seconds one answer may take to grade.", gt=0, le=600)
    memory_bytes: int = setting(2 << 30, "Memory limit", "Bytes one grading process may use.", ge=256 << 20)
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

    judge_url: str = setting(
        "",
        "Judge endpoint",
        "verify --audit: base URL of an OpenAI-compatible endpoint that is asked too; empty for none. "
        "Its key is read from ADVDISTILL_JUDGE_API_KEY.",
        affects_result=False,
    )
    judge_model: str = setting(
        "", "Judge model", "verify --audit: name of the model at the judge endpoint.", affects_result=False
    )

    @model_validator(mode="after")
    def _judge_is_whole(self) -> "RewardsConfig":
        if bool(self.judge_url) != bool(self.judge_model):
            raise ValueError("judge_url and judge_model go together: set both or neither")
        return self

    @model_validator(mode="after")
    def _correct_outranks_wrong(self) -> "RewardsConfig":
        worst_correct = self.correct - self.repetition - self.overlong
        best_wrong = self.format + self.tags + self.steps + self.equations
        if worst_correct <= best_wrong + _ROUNDING:
            raise InputError(
                "correct",
                self.correct,
                "enough that no wrong response outranks a correct one",
                f"A correct one gets at least {worst_correct:g} (correct - repetition - overlong), a wrong "
                f"one up to {best_wrong:g} (format + tags + steps + equations): raise it or lower others.",
            )
        if self.overlong and self.overlong_tokens > self.max_len:
            raise ValueError(
                f"overlong_tokens {self.overlong_tokens} is more than max_len {self.max_len}: "
                "the penalty would start before the first token"
            )
        return self
