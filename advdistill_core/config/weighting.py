"""How rewards become advantages and advantages become weights."""

from typing import Literal

from pydantic import model_validator

from advdistill_core.config.base import Section, setting

_GROUP_POLICY = ("softmax", "positive", "exp_clip", "shifted", "linear", "filter")

# Settings that only some schemes read (advantage "zscore" counts as one). A value for a
# scheme that is not chosen would be ignored in silence, so it is refused.
_READ_BY = {
    "tau": ("softmax",),
    "beta": ("exp_clip",),
    "clip": ("exp_clip",),
    "c": ("shifted",),
    "eps": ("zscore",),
    "s_min": ("zscore",),
    "ddof": ("zscore",),
    "all_correct": _GROUP_POLICY,
    "all_wrong": (*_GROUP_POLICY, "best"),
    "min_weight_frac": ("softmax", "positive", "exp_clip", "shifted"),
}


class WeightingConfig(Section):
    """Group-relative advantages and the weighting scheme."""

    advantage: Literal["zscore", "mean", "loo", "rank", "raw"] = setting(
        "zscore", "Advantage", "How a group's rewards are made relative to each other."
    )
    eps: float = setting(1e-4, "Epsilon", "zscore: added to the standard deviation.", ge=0)
    s_min: float = setting(0.3, "Least deviation", "zscore: floor of the standard deviation.", ge=0)
    ddof: int = setting(1, "Degrees of freedom", "zscore: 1 sample, 0 population deviation.", ge=0, le=1)
    # softmax and not best by measurement: tests/bench/study. `best` keeps the shortest right response,
    # which gains most where that shows its steps, and loses more where it is a bare answer, right by luck.
    scheme: Literal[
        "softmax", "positive", "exp_clip", "shifted", "linear", "filter", "best", "uniform", "first"
    ] = setting(
        "softmax",
        "Scheme",
        "How advantages become weights; uniform and first are plain SFT and look at no reward.",
    )
    # From 0.5 to 0.01 the same responses are kept with the default rubric; at 0.001 the shorter right ones.
    tau: float = setting(0.5, "Temperature tau", "softmax: small is best-of-k, large is uniform.", gt=0)
    beta: float = setting(1.0, "Beta", "exp_clip: temperature of the exponential.", gt=0)
    clip: float = setting(20.0, "Clip", "exp_clip: largest weight.", gt=0)
    c: float = setting(0.5, "Slope c", "shifted: slope of 1 + c A.", gt=0)
    # 0.1 and not 0 by measurement: tests/bench/study. With rewards of 0 and 1, k 8 and tau 0.5
    # a wrong response has at most 0.024 of a right one's weight.
    min_weight_frac: float = setting(
        0.1,
        "Least weight",
        "Responses with less weight than this share (0 to 1) of their group's largest are not trained on: "
        "they cost as many tokens as the others and teach next to nothing. 0 keeps every weight.",
        ge=0,
        le=1,
    )
    normalisation: Literal["group_sum", "group_mean_1", "none"] = setting(
        "group_sum", "Normalisation", "Weights of a group sum to 1, average 1, or are left as they are."
    )
    all_wrong: Literal["drop", "uniform"] = setting(
        "drop", "All-wrong groups", "What becomes of a group without a correct response."
    )
    all_correct: Literal["uniform", "weigh", "drop"] = setting(
        "uniform", "All-correct groups", "What becomes of a group with only correct responses."
    )
    prompt_weight: Literal["one", "difficulty"] = setting(
        "one", "Prompt weight", "one: 1 each; difficulty: 4p(1-p) of the pass rate p."
    )
    merge_duplicates: bool = setting(
        True, "Merge duplicates", "Train equal responses of a group once, with their summed weight."
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "WeightingConfig":
        for name, readers in _READ_BY.items():
            chosen = self.advantage if readers == ("zscore",) else self.scheme
            if chosen not in readers and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} would be ignored with {chosen}: it is read by {', '.join(readers)}")
        return self
