"""The arms of a comparison: each is the run's configuration with a few fields changed.

METHOD section 7. Whatever an arm does not name is the same in all of them: questions,
responses, verdicts, student, optimisation.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advdistill_core.config import DistillConfig, WeightingConfig
from advdistill_core.errors import InputError

# Fields of the weighting that belong to a scheme: an arm with a scheme of its own starts from
# their defaults, since a value of another scheme would be refused as ignored.
_OF_A_SCHEME = (
    *("scheme", "tau", "beta", "clip", "c"),
    *("normalisation", "all_wrong", "all_correct", "min_weight_frac"),
)


@dataclass(frozen=True)
class Arm:
    """One way to learn from the responses.

    Args:
        name: as on the command line.
        title: as in tables.
        changes: by section, the fields that differ from the run's configuration.
        trained: False for a model that is only measured.
    """

    name: str
    title: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trained: bool = True

    @property
    def model(self) -> str:
        """What the stage `evaluate` calls the arm's model."""
        return "student_after" if self.trained else _MEASURED[self.name]


_MEASURED = {"untrained": "student_before", "teacher": "teacher"}


def _weighting(name: str, title: str, **fields: Any) -> Arm:
    return Arm(name, title, {"weighting": fields})


_SIDE = ("format", "tags", "length", "repetition", "steps", "overlong", "equations")


def _rubric(name: str, title: str, weighting: Mapping[str, Any] | None = None, **fields: Any) -> Arm:
    """An arm whose reward is the verdict and what is named, nothing else."""
    changes: dict[str, Mapping[str, Any]] = {"rewards": dict.fromkeys(_SIDE, 0.0) | fields}
    return Arm(name, title, changes | ({"weighting": weighting} if weighting else {}))


_PRUNED = {"min_weight_frac": 0.2, "all_correct": "weigh"}


_LISTED = [
    Arm("untrained", "untrained student", trained=False),
    Arm("advdistill", "AdvDistill as configured"),
    _weighting("sft-1", "SFT on one response", scheme="first"),
    _weighting("sft-all", "SFT on all responses", scheme="uniform"),
    _weighting("rft-pooled", "RFT, pooled", scheme="filter", normalisation="none"),
    _weighting("rft", "RFT, per prompt", scheme="filter"),
    _weighting("best-of-k", "best of k", scheme="best"),
    *(
        _weighting(f"tau-{tau:g}", f"AdvDistill, tau {tau:g}", scheme="softmax", tau=tau)
        for tau in (0.25, 0.5, 1.0, 2.0)
    ),
    # As others define them, so with every weight kept.
    _weighting("positive", "positive advantages", scheme="positive", min_weight_frac=0.0),
    _weighting("exp-clip", "clipped exponential", scheme="exp_clip", min_weight_frac=0.0),
    Arm("teacher", "teacher", trained=False),
    # -- one setting of AdvDistill at a time --------------------------------------------
    Arm("least-0", "AdvDistill, every weight kept", {"weighting": {"min_weight_frac": 0.0}}),
    *(
        Arm(
            f"least-{frac:g}",
            f"weights below {frac:.0%} left out",
            {"weighting": {"min_weight_frac": frac}},
        )
        for frac in (0.05, 0.2)
    ),
    # Near best of k only below 0.01, where a few tokens of length tell right responses apart.
    *(
        _weighting(f"tau-{tau:g}", f"AdvDistill, tau {tau:g}", scheme="softmax", tau=tau)
        for tau in (0.1, 0.05, 0.02, 0.01, 0.001)
    ),
    *(
        _weighting(
            f"tau-{tau:g}-weigh",
            f"AdvDistill, tau {tau:g}, all-correct groups weighed",
            **{"scheme": "softmax", "tau": tau, "all_correct": "weigh"},
        )
        for tau in (0.01, 0.001)
    ),
    Arm("all-wrong-uniform", "all-wrong groups trained evenly", {"weighting": {"all_wrong": "uniform"}}),
    Arm("all-correct-weigh", "all-correct groups weighed", {"weighting": {"all_correct": "weigh"}}),
    Arm("by-difficulty", "prompts weighed by difficulty", {"weighting": {"prompt_weight": "difficulty"}}),
    Arm("seq-mean", "reduction seq_mean", {"student": {"reduction": "seq_mean"}}),
    Arm("const", "reduction const", {"student": {"reduction": "const"}}),
    Arm("k-2", "2 responses per prompt", {"teacher": {"k": 2}}),
    Arm("k-4", "4 responses per prompt", {"teacher": {"k": 4}}),
    # -- a second stage on wrong responses: more steps than the others take ---------------
    Arm(
        "more-steps",
        "then as many steps on right responses alone",
        {"student": {"negatives": {"kind": "unlikelihood", "strength": 0.0}}},
    ),
    *(
        Arm(kind, f"then {title} of wrong responses", {"student": {"negatives": {"kind": kind}}})
        for kind, title in (("unlikelihood", "unlikelihood"), ("margin", "a margin"), ("redi", "redi"))
    ),
    # -- what the reward looks at -------------------------------------------------------
    _rubric("reward-01", "reward 0/1"),
    _rubric("reward-equations", "reward 0/1 and valid equations", equations=0.5),
    Arm(
        "best-equations",
        "best of k, valid equations rewarded",
        {"weighting": {"scheme": "best"}, "rewards": {"equations": 0.2}},
    ),
    Arm("pruned", "slight weights left out", {"weighting": _PRUNED}),
    _rubric("pruned-01", "slight weights left out, reward 0/1", _PRUNED),
    _rubric("pruned-brevity", "slight weights left out, 0/1 and brevity", _PRUNED, length=0.5, max_len=40),
    _rubric("pruned-equations", "slight weights left out, 0/1 and equations", _PRUNED, equations=0.5),
]
#: All arms by name.
ARMS = {arm.name: arm for arm in _LISTED}
#: Those that a comparison takes unless told otherwise.
MAIN = tuple(arm.name for arm in _LISTED[:14] if arm.name != "tau-0.5")


def find(name: str) -> Arm:
    """An arm by name.

    Raises:
        InputError: there is none.
    """
    if name in ARMS:
        return ARMS[name]
    near = difflib.get_close_matches(name, ARMS, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(ARMS)}."
    raise InputError("--arms", name, "the name of an arm", hint)


def configured(config: DistillConfig, arm: Arm) -> DistillConfig:
    """The run's configuration as the arm has it.

    Raises:
        InputError: the arm does not go with the rest of the configuration.
    """
    document = config.model_dump()
    for section, fields in arm.changes.items():
        if "scheme" in fields:
            defaults = WeightingConfig().model_dump()
            document[section] |= {name: defaults[name] for name in _OF_A_SCHEME}
        document[section] |= fields
    try:
        return DistillConfig.model_validate(document)
    except ValueError as error:
        raise InputError(f"arm {arm.name}", str(error), "a configuration that is valid") from error
