"""The report: one HTML file that needs no network and trusts no text it shows.

Jinja escapes what it writes; the browser's data are packed or have every `<` escaped, and the page
shows them as text only. A content security policy allows just the page's own scripts, by their
hashes, and no connection at all.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from advdistill_core.config import DistillConfig
from advdistill_core.report import sections, wording
from advdistill_core.report.browser import View
from advdistill_core.report.figures import Figure

_HERE = "advdistill_core.report"


def render(
    config: DistillConfig,
    metrics: Mapping[str, Any],
    stage_metrics: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, list[Figure]],
    views: Iterable[View],
) -> str:
    """The whole page.

    Args:
        metrics: of `metrics.collect`.
        stage_metrics: by stage label, what the manifests hold.
        figures: by section; drawn by the page.
        views: lists for the browser.
    """
    views = list(views)
    confidence = config.evaluation.confidence
    found = metrics["paired"]
    return filled(
        "report.html.j2",
        config.name,
        figures,
        ["report.js"],
        kind="report",
        metrics=metrics,
        confidence=f"{100 * confidence:g} %",
        caveats=wording.caveats(metrics),
        tiles=sections.tiles(metrics, confidence),
        pipeline=sections.pipeline(metrics),
        outcomes=sections.outcome_rows(metrics),
        at_k_rows=sections.at_k_rows(metrics),
        set_rows=sections.set_rows(metrics),
        standard_rows=sections.standard_rows(metrics),
        difficulty_rows=sections.difficulty_rows(metrics),
        p_value="below 0.001" if found["p_value"] < 0.001 else f"{found['p_value']:.3f}",
        group_rows=sections.group_rows(metrics, config),
        weight_note=sections.weight_note(metrics),
        behaviour_rows=sections.behaviour_rows(metrics),
        likelihood_rows=sections.likelihood_rows(metrics),
        group_behaviour_rows=sections.group_behaviour_rows(metrics),
        dropped_rows=sections.dropped_rows(metrics, stage_metrics),
        contamination_rows=sections.contamination_rows(metrics),
        contamination_set_rows=sections.contamination_set_rows(metrics),
        contamination_note=sections.contamination_note(metrics),
        matches=[
            [m["row_id"], m["set"], m["question_id"], m["kind"], str(m["longest_words"])]
            for m in metrics["contamination"]["matches"]
        ],
        second_note=sections.second_note(metrics),
        model_rows=sections.model_rows(config),
        configuration=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        stage_metrics=yaml.safe_dump(
            json.loads(json.dumps(stage_metrics)), sort_keys=False, allow_unicode=True
        ),
        versions=sections.versions(),
        views_json=embedded_json([view.rows() for view in views]),
        chunks=(chunk for view in views for chunk in view.chunks()),
    )


def filled(
    template: str, name: str, figures: Mapping[str, list[Figure]], scripts: Iterable[str], **values: Any
) -> str:
    """A page: a template with the style, the theme and the plots that all pages have.

    Args:
        template: extends `base.html.j2`.
        name: of the run.
        figures: by section.
        scripts: files of the page's own, run after the theme's.
        **values: what else the template shows.
    """
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader(_HERE, ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    texts = [_file("theme.js"), *map(_file, scripts), get_plotlyjs(), _file("plots.js")]
    chosen = [_script(text) for text in texts]
    return environment.get_template(template).render(
        name=name,
        figures=figures,
        figures_json=embedded_json([f for group in figures.values() for f in group]),
        css=Markup(_file("report.css")),
        scripts=chosen,
        script_hashes=Markup(" ".join(f"'sha256-{_hash(script)}'" for script in chosen)),
        **values,
    )


def embedded_json(value: Any) -> Markup:
    """JSON for a script element: no `<` in it, so nothing can close or comment the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _script(text: str) -> Markup:
    """A script of our own or Plotly's, as the browser will hash it."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("script: got text that would end its element, expected none.")
    return Markup(text.replace("\r\n", "\n").replace("\r", "\n"))


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _file(name: str) -> str:
    return files(_HERE).joinpath(name).read_text(encoding="utf-8")
