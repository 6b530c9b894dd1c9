"""Dataset card and model card: what was made, from what, how well it did, and its limits."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from advdistill_core.config import DistillConfig
from advdistill_core.report import sections, wording


def render(config: DistillConfig, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The cards by file name, as Markdown with the metadata block that model hubs read."""
    # Markdown is no HTML: escaping would show. No model's text goes into a card.
    environment = Environment(
        loader=PackageLoader("advdistill_core.report", ""),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(percent=wording.percent, points=wording.points, number=wording.number)
    environment.filters["counted"] = wording.counted
    environment.filters["quoted"] = json.dumps  # a JSON string is a YAML string
    level = f"{100 * config.evaluation.confidence:g} %"
    context = {
        "config": config,
        "m": metrics,
        "level": level,
        "caveats": wording.caveats(metrics),
        "sources": _sources(config),
        "lineage": [(label, s["fingerprint"]) for label, s in metrics["stages"].items()],
        "versions": sections.versions(),
    }
    return {
        name: environment.get_template(f"{name}.j2").render(context)
        for name in ("dataset_card.md", "model_card.md")
    }


def _sources(config: DistillConfig) -> str:
    prompts = config.prompts
    if prompts.source == "reasoning_gym":
        return "reasoning-gym: " + (", ".join(f.name for f in prompts.families) or "chain_sum")
    # The file's name only: where it lies on somebody's disk is nobody's business.
    return f"{prompts.source}: {Path(prompts.path).name if prompts.path else prompts.dataset}"
