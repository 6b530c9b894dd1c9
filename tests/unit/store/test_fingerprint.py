"""Fingerprints: stable where the result is the same, different where it is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.errors import FingerprintError
from advdistill_core.store import canonical_json, fingerprint


def test_known_value_in_every_process() -> None:
    code = (
        "from advdistill_core.config import DistillConfig as C\n"
        "from advdistill_core.store import fingerprint as f\n"
        "print(f('s', '1', C().teacher.identity(), {'b': 'y', 'a': 'x'}))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(Path(__file__).parents[3])},
        ).stdout
        for seed in (1, 2)
    }
    assert len(seen) == 1
    assert (
        fingerprint("s", "1", DistillConfig().teacher.identity(), {"a": "x", "b": "y"}) == seen.pop().strip()
    )


def test_key_order_does_not_matter_values_do() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None, "é"]}) == '{"a":[1.5,null,"é"],"b":1}'
    base = fingerprint("s", "1", {"a": 1, "b": 2}, {})
    assert base == fingerprint("s", "1", {"b": 2, "a": 1}, {})
    assert len({base, *(fingerprint(*a) for a in _variants())}) == 5


def _variants() -> list[tuple[str, str, dict[str, int], dict[str, str]]]:
    return [
        ("t", "1", {"a": 1, "b": 2}, {}),
        ("s", "2", {"a": 1, "b": 2}, {}),
        ("s", "1", {"a": 1, "b": 3}, {}),
        ("s", "1", {"a": 1, "b": 2}, {"x": "h"}),
    ]


@pytest.mark.parametrize(
    "value", [{1, 2}, Path("x"), float("nan"), float("inf"), {1: "a"}, object(), b"x", {"a": [{"b": {3}}]}]
)
def test_unstable_values_are_refused(value: object) -> None:
    with pytest.raises(FingerprintError):
        canonical_json({"v": value})


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("teacher", {"batch_size": 3}),
        ("teacher", {"shard_size": 5}),
        ("teacher", {"device": "cuda:1"}),
        ("student", {"batch_tokens": 99}),
        ("student", {"checkpoint_every_steps": 7}),
        ("rewards", {"num_workers": 3}),
        ("evaluation", {"batch_size": 3}),
    ],
)
def test_what_leaves_the_result_the_same_is_not_identity(section: str, change: dict[str, object]) -> None:
    config = getattr(DistillConfig(), section)
    assert config.model_copy(update=change).identity() == config.identity()


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("teacher", {"temperature": 0.7}),
        ("teacher", {"seed": 1}),
        ("student", {"learning_rate": 1e-4}),
        ("weighting", {"tau": 1.0}),
        ("rewards", {"length": 0.2}),
        ("rewards", {"timeout_s": 9.0}),  # a verdict may be `timeout`
        ("rewards", {"memory_bytes": 1 << 30}),
        ("prompts", {"num_train": 3}),
        ("evaluation", {"max_new_tokens": 3}),
    ],
)
def test_what_changes_the_result_is_identity(section: str, change: dict[str, object]) -> None:
    config = getattr(DistillConfig(), section)
    assert config.model_copy(update=change).identity() != config.identity()
