"""Equal steps and equal tokens: how many prompts each arm puts into an optimizer step.

Arms train on different shares of the responses, so that the same number of prompts holds
different numbers of tokens. Every arm gets the steps of the reference and as many prompts in
each as hold its tokens; what has fewer tokens goes over them more often.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advdistill_core.config import StudentConfig
from advdistill_core.store import Artifact


@dataclass(frozen=True)
class Load:
    """What a weights table gives to train on.

    Args:
        num_groups: prompts with at least one trained response.
        num_tokens: tokens of the trained responses, equal ones of a prompt counted once.
    """

    num_groups: int
    num_tokens: int

    @property
    def tokens_per_group(self) -> float:
        return self.num_tokens / max(1, self.num_groups)


@dataclass(frozen=True)
class Budget:
    """What every arm may spend.

    Args:
        steps: optimizer steps.
        tokens_per_step: completion tokens in each, on average.
    """

    steps: int
    tokens_per_step: float

    @property
    def tokens(self) -> float:
        return self.steps * self.tokens_per_step


def load_of(responses: Artifact, weights: Artifact) -> Load:
    """Count what has weight."""
    groups: set[str] = set()
    tokens = 0
    lengths = _lengths(responses)
    for table in weights.tables():
        for row in table.select(["prompt_id", "sample_id", "weight", "prompt_weight"]).to_pylist():
            if row["weight"] * row["prompt_weight"] > 0:
                groups.add(row["prompt_id"])
                tokens += lengths[row["prompt_id"], row["sample_id"]]
    return Load(len(groups), tokens)


def _lengths(responses: Artifact) -> Mapping[tuple[str, int], int]:
    return {
        (row["prompt_id"], row["sample_id"]): row["num_tokens"]
        for table in responses.tables()
        for row in table.select(["prompt_id", "sample_id", "num_tokens"]).to_pylist()
    }


def budget_of(student: StudentConfig, load: Load) -> Budget:
    """What training with a configuration spends on a load."""
    per_step = min(student.groups_per_step, load.num_groups)
    steps = student.max_steps or student.epochs * -(-load.num_groups // max(1, student.groups_per_step))
    return Budget(steps, per_step * load.tokens_per_group)


def within(budget: Budget, load: Load) -> dict[str, Any]:
    """The fields of the student section that spend the budget on another load.

    A step holds no prompt twice, so a load with fewer tokens than a step's spends less.
    """
    prompts = round(budget.tokens_per_step / load.tokens_per_group) if load.num_tokens else 1
    return {"max_steps": budget.steps, "epochs": 1, "groups_per_step": max(1, min(prompts, load.num_groups))}
