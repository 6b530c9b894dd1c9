"""Comparing methods: arms from the same responses, equal budgets, paired statistics."""

from advdistill_core.compare.arms import ARMS, MAIN, Arm, configured, find
from advdistill_core.compare.budget import Budget, Load, budget_of, load_of, within

__all__ = ["ARMS", "MAIN", "Arm", "Budget", "Load", "budget_of", "configured", "find", "load_of", "within"]
