"""The arms: what each changes, and that nothing else differs."""

import pytest

from advdistill_core.compare import ARMS, MAIN, configured, find
from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_valid_configuration_that_differs_only_where_it_says(name: str) -> None:
    base = DistillConfig.model_validate({"weighting": {"tau": 0.7, "all_wrong": "uniform"}})
    arm = find(name)
    changed = configured(base, arm)
    differing = {s for s in type(base).model_fields if getattr(base, s) != getattr(changed, s)}
    assert differing <= set(arm.changes)
    found = changed.model_dump()
    for section, fields in arm.changes.items():
        for field, value in fields.items():
            if isinstance(value, dict):
                assert value.items() <= found[section][field].items()
            else:
                assert found[section][field] == value


def test_arms_of_the_method_are_taken_unless_told_otherwise() -> None:
    assert {"untrained", "sft-1", "sft-all", "rft-pooled", "rft", "best-of-k", "teacher"} < set(MAIN)
    assert {"advdistill", "tau-0.25", "tau-1", "tau-2", "positive", "exp-clip"} < set(MAIN)


def test_a_baseline_does_not_take_over_what_belongs_to_another_scheme() -> None:
    base = DistillConfig.model_validate({"weighting": {"tau": 2.0, "normalisation": "none"}})
    assert configured(base, find("rft")).weighting.normalisation == "group_sum"
    assert configured(base, find("rft-pooled")).weighting.normalisation == "none"
    assert configured(base, find("sft-all")).weighting.tau == 0.5  # its default, which nothing reads


def test_a_least_weight_of_the_run_is_no_reason_to_refuse_the_baselines() -> None:
    base = DistillConfig.model_validate({"weighting": {"min_weight_frac": 0.3}})
    for name in MAIN:
        configured(base, find(name))
    assert configured(base, find("advdistill")).weighting.min_weight_frac == 0.3
    # as others define them: with every weight
    assert configured(base, find("exp-clip")).weighting.min_weight_frac == 0.0
    assert configured(base, find("positive")).weighting.min_weight_frac == 0.0


def test_an_arm_that_does_not_go_with_the_rest_is_refused() -> None:
    base = DistillConfig.model_validate({"weighting": {"scheme": "best"}})
    with pytest.raises(InputError, match="arm all-correct-weigh"):
        configured(base, find("all-correct-weigh"))


def test_an_unknown_arm_is_named_with_a_near_one() -> None:
    with pytest.raises(InputError, match="Did you mean best-of-k"):
        find("best-of-l")
