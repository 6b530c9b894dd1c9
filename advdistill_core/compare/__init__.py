"""Comparing methods: arms from the same responses, equal budgets, paired statistics."""

from advdistill_core.compare.arms import ARMS, MAIN, Arm, configured, find
from advdistill_core.compare.budget import Budget, Load, budget_of, load_of, within
from advdistill_core.compare.results import Outcome, accuracies, differences, outcome_of

__all__ = [
    "ARMS",
    "MAIN",
    "Arm",
    "Budget",
    "Load",
    "Outcome",
    "accuracies",
    "budget_of",
    "configured",
    "differences",
    "find",
    "load_of",
    "outcome_of",
    "within",
]
