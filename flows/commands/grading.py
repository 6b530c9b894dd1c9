"""The commands that work on files without a run: verify and weigh."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.options import AsJson, Overrides

Source = Annotated[Path, typer.Argument(metavar="IN", help="A .jsonl or .parquet file.")]
Target = Annotated[Path, typer.Option("--out", metavar="OUT", help="The file to write.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (verify, weigh):
        app.command()(command)


def verify(
    source: Source,
    target: Target,
    task: Annotated[str, typer.Option("--task", help="Which verifier: math, choice, exact, ...")] = "math",
    overrides: Overrides = None,
    audit: Annotated[
        Path | None, typer.Option("--audit", help="Also write where an independent grader disagrees.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Grade answers: rows with gold and prediction get a verdict and what was extracted."""
    from advdistill_core.config.loading import apply_overrides, build_config
    from flows.commands.verify import verify_files
    from flows.terminal import Display

    _keep_apart(source, target, audit)
    config = build_config(apply_overrides({}, overrides or []))
    with Display() as display:
        counts = verify_files(source, target, task, config.rewards, display, audit)
    _show(counts, as_json)


def weigh(source: Source, target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Weigh rewards: rows with prompt_id, correct and reward get an advantage and a weight."""
    from flows.commands.weigh import weigh_file

    _keep_apart(source, target)
    _show(weigh_file(source, target, overrides or []), as_json)


def _keep_apart(source: Path, target: Path, audit: Path | None = None) -> None:
    """Refuse to write one of the files over another.

    Raises:
        InputError: naming the option.
    """
    from advdistill_core.errors import InputError

    taken = {source.resolve(): "IN"}
    for name, path in (("--out", target), ("--audit", audit)):
        if path is not None and (other := taken.setdefault(path.resolve(), name)) != name:
            raise InputError(
                name, str(path), f"another file than {other}, which would be lost", "Name a new one."
            )


def _show(counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print(json.dumps(counts))
        return
    table = Table("count", "rows")
    for name, count in counts.items():
        table.add_row(name, str(count))
    Console().print(table)
