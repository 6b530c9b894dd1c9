"""The command line. Heavy imports happen inside the commands that need them."""

import json
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advdistill_core.errors import AdvDistillError, InputError, machine_error
from advdistill_core.home import keep_inside
from flows import roots, usage
from flows.commands import compare, estimate, grading, serve
from flows.options import AsJson, FromStage, Overrides, Recipe, RecipeIfAny, Root

_INTERRUPTED = 130
_TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(
    name="advdistill",
    help="Distil a teacher's weighted responses into a smaller student.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"advdistill {version('advdistill')}")
        raise typer.Exit


@app.callback()
def root_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What goes before a command."""


@app.command()
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    root: Root = None,
    from_stage: FromStage = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show what would run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Distil: load, generate, verify, weigh, train, evaluate, report."""
    from flows import catalog
    from flows.precheck import precheck
    from flows.server import check_named

    config = catalog.load(recipe, overrides or [], root)
    if not dry_run:
        check_named()
    precheck(config, make_root=not dry_run)
    if dry_run:
        from flows.dry_run import show_plan

        show_plan(config, as_json)
        return
    from flows.launch import run_here

    summary = run_here(config, from_stage=from_stage or "first missing")
    if as_json:
        print(json.dumps(summary))
    else:
        _show_summary(summary)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the shipped recipes."""
    from flows import catalog

    known = {name: catalog.about(path) for name, path in catalog.shipped().items()}
    if as_json:
        print(json.dumps(known))
        return
    table = Table("recipe", "what it does")
    for name, text in known.items():
        table.add_row(name, text)
    Console().print(table)


@app.command()
def status(root: Root = None, as_json: AsJson = False) -> None:
    """List the runs under a root."""
    from flows.commands.status import show

    show(roots.to_read(root), as_json)


@app.command()
def report(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or 'latest'.")],
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Print where a run's report is."""
    from flows.run_record import read_runs

    runs = [r for r in read_runs(roots.to_read(root)) if r.report]
    chosen = [r for r in runs if run_id == "latest" or r.run_id.startswith(run_id)]
    if not chosen:
        raise InputError("RUN", run_id, "the id of a finished run", "`advdistill status` lists them.")
    if run_id not in ("latest", chosen[0].run_id) and len(chosen) > 1:
        both = f"the beginning of one id; {chosen[0].run_id} and {chosen[1].run_id} begin so"
        raise InputError("RUN", run_id, both, "Give more of it.")
    print(
        json.dumps({"run_id": chosen[0].run_id, "report": chosen[0].report}) if as_json else chosen[0].report
    )


@app.command()
def doctor(
    recipe: RecipeIfAny = None,
    overrides: Overrides = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine, the server and a recipe's models; exit code 1 if something cannot work."""
    from flows import catalog
    from flows.commands.doctor import examine

    config = catalog.load(recipe or "", overrides or [], root)
    found = examine(config, recipe is not None)
    if as_json:
        print(json.dumps({"findings": [finding.__dict__ for finding in found]}))
    else:
        table = Table("check", "state")
        for title in ("found", "what to do"):
            table.add_column(title, overflow="fold")  # a path is to be copied whole
        for finding in found:
            table.add_row(*map(escape, (finding.name, finding.state, finding.text, finding.remedy)))
        Console().print(table)
    if any(finding.state == "problem" for finding in found):
        raise typer.Exit(1)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the Prefect server on this machine, and `advdistill up` first if it runs."""
    from flows.commands.up import end
    from flows.server import LocalServer

    ended = end()
    stopped = LocalServer().stop() or ended
    if as_json:
        print(json.dumps({"stopped": stopped}))
    else:
        print("Stopped." if stopped else "No server was running.")


def _show_summary(summary: dict[str, Any]) -> None:
    from flows.run_record import headline_figures

    console = Console()
    table = Table("stage", "outcome", "rows", "seconds")
    for label, stage in summary["stages"].items():
        rows = str(stage["rows"] or "")  # a student and a report have none
        table.add_row(label, stage["outcome"], rows, f"{stage['seconds']:.1f}")
    console.print(table)
    figures = Table("figure", "value")
    for name, value in headline_figures(summary["metrics"]).items():
        figures.add_row(name, value)
    console.print(figures)
    console.print(f"Report: {summary['report']}", soft_wrap=True)


compare.register(app)
estimate.register(app)
grading.register(app)
serve.register(app)


def guarded(command: Callable[..., Any]) -> int:
    """Run a command and turn its errors into one line and an exit code.

    Returns:
        0 done, 1 the run failed, 2 the input is wrong, 130 interrupted, 143 told to end.
    """
    try:
        # So that usage errors come here, too, and name the command however this process was started.
        code = command(standalone_mode=False, prog_name="advdistill")
    except usage.UsageError as error:
        return _say(usage.explain(error), 2) if len(sys.argv) > 1 else _help(error)
    except InputError as error:
        return _say(error, 2)
    except AdvDistillError as error:
        return _say(error, 1)
    except (OSError, MemoryError) as error:
        told = machine_error("the run", error)
        if told is None:
            raise
        return _say(told, 1)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    if code in (_INTERRUPTED, _TERMINATED):
        return _say("interrupted; the same command continues where it stopped.", code)
    return code if isinstance(code, int) else 0


def _say(message: object, code: int) -> int:
    print(f"advdistill: {message}", file=sys.stderr)
    if "--json" in sys.argv:  # whoever reads objects gets one
        print(json.dumps({"error": str(message), "exit_code": code}))
    return code


def _help(error: Exception) -> int:
    """No command at all: show what there is."""
    print(error)
    return 2


def _end(number: int, frame: FrameType | None) -> None:
    """Take a request to end as an interruption from the keyboard, so that it is said in one line."""
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the `advdistill` command."""
    keep_inside()
    signal.signal(signal.SIGTERM, _end)  # also called by Prefect's own handler, when that has tidied up
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
