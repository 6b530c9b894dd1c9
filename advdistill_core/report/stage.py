"""The stage `publish`: the report, the figures and the cards of a finished run."""

import json
from collections.abc import Mapping
from typing import Any

from advdistill_core.config import DistillConfig
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter

_MAX_BROWSED_RESPONSES = 120_000


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The report shows the run's name and its whole configuration, also what made no difference."""
    sections = ("prompts", "teacher", "rewards", "weighting", "student", "evaluation")
    shown = {name: getattr(config, name).model_dump(mode="json") for name in sections}
    return {"name": config.name, "shown": shown}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Write `report.html`, `metrics.json`, `dataset_card.md` and `model_card.md`."""
    from advdistill_core.report import browser, cards, figures, gather, page, second
    from advdistill_core.report.metrics import collect, labelled

    def tell(done: int, message: str) -> None:
        progress(Event(stage="publish", done=done, total=3, unit="steps", message=message))

    tell(0, "reading the tables")
    heldout = gather.questions(inputs["prompts"], "heldout")
    groups = list(gather.groups(gather.questions(inputs["prompts"], "train"), inputs))
    before, after = gather.scores(inputs.get("scores_before")), gather.scores(inputs.get("scores_after"))
    tell(1, "computing the figures")
    metrics = collect(groups, before, after, heldout, inputs, config.evaluation.confidence)
    count = config.evaluation.second_opinions
    num_asked, differing = second.second_opinions(groups, inputs["prompts"], config.rewards, count)
    groups = second.tagged(groups, differing)
    metrics["second_opinions"] = {"asked": num_asked, "disagreeing": len(differing)}
    stage_metrics = {label: _told(part.manifest.metrics) for label, part in labelled(inputs).items()}
    tell(2, "writing the report")
    views = [browser.heldout_view(heldout, before, after)] if heldout else []
    views.append(browser.train_view(groups, _MAX_BROWSED_RESPONSES))
    html = page.render(
        config,
        metrics,
        stage_metrics,
        {
            "accuracy": figures.accuracies(metrics),
            "distributions": figures.distributions(groups)
            + figures.weighting(stage_metrics.get("weigh", {})),
            "training": figures.training(gather.training_log(inputs["student"])),
            "lengths": figures.lengths(groups, before, after),
        },
        views,
    )
    out.write_file("report.html", html.encode())
    out.write_file("metrics.json", json.dumps(metrics, indent=1, allow_nan=False).encode())
    for name, text in cards.render(config, metrics).items():
        out.write_file(name, text.encode())
    out.note(metrics={name: value for name, value in metrics.items() if not isinstance(value, dict)})
    tell(3, "")


def _told(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's figures without the contaminated rows, which have a table of their own."""
    record = metrics.get("contamination")
    if not isinstance(record, dict):
        return dict(metrics)
    return {**metrics, "contamination": {k: v for k, v in record.items() if k != "matches"}}
