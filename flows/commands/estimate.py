"""`advdistill estimate`: what a recipe's generation will take, before it is paid for."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.options import AsJson, Overrides

if TYPE_CHECKING:  # heavy; the command imports them when it runs
    from advdistill_core.config import DistillConfig
    from advdistill_core.progress import Progress
    from advdistill_core.teachers.estimate import Estimate


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(estimate)


def estimate(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")],
    overrides: Overrides = None,
    prompts: Annotated[int, typer.Option("--prompts", min=1, max=256, help="Prompts to try.")] = 8,
    samples: Annotated[int, typer.Option("--samples", min=1, max=64, help="Responses to each.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Estimate tokens, time and money of a generation from a short probe."""
    from flows import catalog
    from flows.terminal import Display

    # Nothing of a probe may be found by a run: it has a store of its own, for its own time.
    with tempfile.TemporaryDirectory(prefix="advdistill-estimate-") as root, Display() as display:
        config = catalog.load(recipe, overrides or [], root)
        found = _probe(config, prompts, samples, display)
    if as_json:
        print(json.dumps({"name": config.name, **found.model_dump()}))
    else:
        _show(found)


def _probe(config: DistillConfig, prompts: int, samples: int, progress: Progress) -> Estimate:
    from advdistill_core.stages import LOAD, run_stage
    from advdistill_core.store import Store
    from advdistill_core.teachers.estimate import estimate as estimate_generation
    from flows.precheck import precheck

    precheck(config)
    store = Store(config.storage.root)
    loaded = store.open(run_stage(LOAD, config, {}, store, progress=progress))
    return estimate_generation(config, loaded, prompts, samples, progress)


def _show(found: Estimate) -> None:
    console = Console()
    console.print(_table(found))
    money = f", {found.money:.4g} (at most {found.money_high:.4g}) in money" if found.is_priced else ""
    probe = ", ".join(
        f"{t.probe_responses} responses in {t.probe_seconds:.1f} s"
        + (f", {t.failed} of them failed" if t.failed else "")
        for t in found.teachers
    )
    console.print(
        f"{found.responses:,} responses to {found.num_prompts:,} prompts: {found.tokens:,.0f} tokens"
        f"{money}, {_duration(found.seconds)} at the probe's speed ({probe}). What earlier runs got to the "
        "same requests costs nothing again.",
        soft_wrap=True,
    )


def _table(found: Estimate) -> Table:
    """A column for each teacher: names of models are long, and few figures fit beside each other."""
    table = Table("teacher")
    for t in found.teachers:
        table.add_column(escape(t.teacher), overflow="fold", justify="right")
    rows = {
        "responses": [f"{t.responses:,}" for t in found.teachers],
        "tokens in a response": [f"{t.tokens_per_response:.0f}" for t in found.teachers],
        "cut off at max_new_tokens": [f"{t.truncated_frac:.0%}" for t in found.teachers],
        "tokens": [f"{t.tokens:,.0f}" for t in found.teachers],
        "tokens at most (95 %)": [f"{t.tokens_high:,.0f}" for t in found.teachers],
        "time": [_duration(t.seconds) for t in found.teachers],
    }
    if found.is_priced:
        rows["money"] = [f"{t.money:.4g}" for t in found.teachers]
    for title, cells in rows.items():
        table.add_row(title, *cells)
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
