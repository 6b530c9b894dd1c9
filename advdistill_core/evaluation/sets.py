"""The stage `questions`: an evaluation set from its own source."""

from collections.abc import Mapping
from typing import Any

from advdistill_core.config import DistillConfig, PromptsConfig
from advdistill_core.config.evaluation import EvaluationSet
from advdistill_core.progress import Progress
from advdistill_core.prompts import sources
from advdistill_core.prompts import stage as load
from advdistill_core.store import Artifact, ArtifactWriter


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The questions of one set depend on its source alone, not on its name or the other sets."""
    chosen = config.evaluation.chosen_set(params["set"])
    return {"questions": {**sources.identity(_as_prompts(chosen)), "name": ""}}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Write `heldout-*.parquet` with the questions of the set `params["set"]`.

    Raises:
        InputError: the source is wrong or has too few distinct questions.
    """
    chosen = _as_prompts(config.evaluation.chosen_set(params["set"]))
    load.run(config.model_copy(update={"prompts": chosen}), inputs, params, out, progress)


def _as_prompts(chosen: EvaluationSet) -> PromptsConfig:
    """The set as a source whose questions are all kept back."""
    fields = {
        name: getattr(chosen, name) for name in chosen.model_dump() if name in PromptsConfig.model_fields
    }
    return PromptsConfig.model_construct(**fields, num_train=0, num_heldout=chosen.num_questions)
