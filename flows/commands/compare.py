"""The command `compare`: methods side by side on the same responses."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from advdistill_core.errors import InputError
from flows.options import AsJson, Overrides, Root

_ARMS = "Arms, by comma, or 'all'; the main ones without it. `--arms list` shows them."

_COLUMNS = ("arm", "set", "right", "points", "interval", "p (Holm)", "of teacher")
_MEANING = """\
points: the arm's right answers less those of {reference}; below zero, {reference} is ahead
of teacher: right answers as a share of the teacher's"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe or a YAML file; not needed to list arms.")
    ] = "",
    arms: Annotated[str, typer.Option("--arms", help=_ARMS)] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of the training, by comma.")] = "0,1,2",
    overrides: Overrides = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Train several methods on the same cached responses, at equal steps and tokens, and compare them."""
    from advdistill_core.compare import ARMS, MAIN, find

    if arms == "list":
        _list_arms(as_json)
        return
    if not recipe:
        raise InputError(
            "RECIPE", "nothing", "a shipped recipe or a YAML file", "`advdistill recipes` lists them."
        )
    names = [*ARMS] if arms == "all" else [find(name).name for name in _split(arms)] or [*MAIN]
    numbers = _numbers(seeds)
    from flows import catalog
    from flows.precheck import precheck

    config = catalog.load(recipe, overrides or [], root)
    precheck(config)
    from flows.launch import run_here

    summary = run_here(config, "compare", arms=names, seeds=numbers)
    if as_json:
        print(json.dumps(summary))
    else:
        _show(summary)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    parts = _split(text)
    if not parts or not all(part.isdecimal() for part in parts):
        raise InputError("--seeds", text, "whole numbers from 0 up, by comma", "For example --seeds 0,1,2.")
    return [int(part) for part in dict.fromkeys(parts)]


def _list_arms(as_json: bool) -> None:
    from advdistill_core.compare import ARMS, MAIN

    if as_json:
        print(json.dumps({name: arm.title for name, arm in ARMS.items()}))
        return
    table = Table("arm", "what it is", "taken unless told otherwise")
    for name, arm in ARMS.items():
        table.add_row(name, arm.title, "yes" if name in MAIN else "")
    Console().print(table)


def _show(summary: dict[str, Any]) -> None:
    from advdistill_core.report.wording import percent, points
    from advdistill_core.store import files

    console = Console()
    folder = summary["report"].removesuffix("/report.html")
    found = json.loads(files.Files(folder).read("comparison.json"))
    table = Table(*(Column(name, overflow="fold") for name in _COLUMNS))
    for row in found["table"]:
        compared = row["difference"] is not None
        table.add_row(
            row["arm"],
            row["set"] if row["sampling"] != "samples" else f"{row['set']} (samples)",
            percent(row["accuracy"]),
            points(row["difference"]) if compared else "",
            f"{points(row['difference_low'])} to {points(row['difference_high'])}" if compared else "",
            f"{row['p_holm']:.3f}" if compared else "",
            percent(row["of_teacher"], 0),
        )
    console.print(table)
    console.print(_MEANING.format(reference=found["reference"]), style="dim", soft_wrap=True)
    console.print(found["headline"], soft_wrap=True)
    console.print(f"Report: {summary['report']}", soft_wrap=True)
