"""Every shipped recipe loads, and says what it does."""

import pytest

from advdistill_core.config import DistillConfig
from flows import catalog

NEEDS_A_FILE = {"gsm8k-smollm2"}


@pytest.mark.parametrize("name", sorted(catalog.shipped()))
def test_shipped_recipe(name: str) -> None:
    overrides = ["prompts.path=questions.jsonl"] if name in NEEDS_A_FILE else []
    config = catalog.load(name, overrides)
    assert isinstance(config, DistillConfig)
    assert config.name == name
    assert catalog.about(catalog.shipped()[name])


def test_the_promised_recipes_are_there() -> None:
    assert {"quickstart", "smoke", "gsm8k-smollm2"} <= set(catalog.shipped())
