"""Questions: where they come from, how they are split and put to a model."""

from advdistill_core.prompts.sources import precheck
from advdistill_core.prompts.types import Question

__all__ = ["Question", "precheck"]
