"""Commands round a Prefect server, artifacts and champions: up, deploy, gc, champions, rollback."""

import json
import os
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from advdistill_core.errors import InputError
from flows import roots
from flows.options import AsJson, Root

Gpus = Annotated[int, typer.Option("--gpus", min=1, help="Slots of the gpu pool.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, deploy, gc, champions, rollback):
        app.command()(command)


def up(root: Root = None, gpus: Gpus = 1, as_json: AsJson = False) -> None:
    """Server, deployments and workers on this machine, with the UI; Ctrl-C ends what it started."""
    from flows.commands.up import up as start

    start(roots.absolute(root), gpus, as_json)


def deploy(
    root: Root = None,
    gpus: Gpus = 1,
    overlap: Annotated[
        Literal["wait", "cancel"], typer.Option(help="What a re-distillation does while another runs.")
    ] = "wait",
    flows: Annotated[
        int | None, typer.Option(min=1, help="Slots of the cpu pool: flows at once; any number without it.")
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Print infra/prefect.yaml instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register pools, limits and deployments on the server that PREFECT_API_URL names."""
    strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE" if overlap == "wait" else "CANCEL_NEW"
    if show:
        import yaml

        from flows.deployments import deployments, prefect_yaml

        listed = deployments("{{ $ADVDISTILL_ROOT }}", strategy, complete=False)
        print(_YAML_HEAD + yaml.safe_dump(prefect_yaml(listed), sort_keys=False, width=100), end="")
        return
    from flows.server import connect

    if not os.environ.get("PREFECT_API_URL"):
        raise InputError(
            "PREFECT_API_URL", "nothing", "the address of a Prefect server", "Or use `advdistill up`."
        )
    connect()
    from flows.commands.deploy import deploy as register_all

    ids = register_all(roots.absolute(root), gpus, strategy, flows)
    print(json.dumps(ids) if as_json else "\n".join(ids))


def gc(
    root: Root = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    keep_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Let go of runs that began earlier, and remove their records; all are kept without it.",
        ),
    ] = None,
    min_age_h: Annotated[float, typer.Option(min=0, help="Younger artifacts stay, in hours.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """List artifacts that no run, champion or pin refers to; --delete removes them."""
    from flows.commands import gc as collector
    from flows.commands.gc_words import as_object, show

    where = roots.to_read(root)
    found = collector.survey(where, keep_days, min_age_h)
    if delete:
        collector.remove(where, found.garbage)
        collector.drop_runs(where, found.runs)
    if as_json:
        print(json.dumps(as_object(found, delete)))
    else:
        show(found, where, delete, min_age_h)


def champions(root: Root = None, as_json: AsJson = False) -> None:
    """List the champions and how they came to be."""
    from advdistill_core.store import Store
    from flows import promotion

    where = roots.to_read(root)
    lines = promotion.lines(Store(where))
    if as_json:
        print(json.dumps({name: line.model_dump(mode="json") for name, line in lines.items()}))
        return
    if not lines:
        print(f"No champion under {where}; runs of the deployment `redistill/nightly` make them.")
        return
    table = Table("champion", "student", "difference", "promoted", "by")
    for name, line in lines.items():
        for i, champion in enumerate(line.champions):
            d = champion.difference
            table.add_row(
                f"{name} {'*' if i == line.current else ''}",
                champion.student.uri,
                f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" if d else "",
                champion.run_id,
                champion.by,
            )
    Console().print(table)


def rollback(
    name: Annotated[str, typer.Argument(help="The champion's name.")] = "default",
    by: Annotated[str, typer.Option(help="Who decided it.")] = "command line",
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Return to the champion before the current one; that one is not promoted again."""
    from advdistill_core.store import Store
    from flows import promotion

    line = promotion.rollback(Store(roots.to_read(root)), name, by)
    uri = line.champion.student.uri if line.champion else None
    print(json.dumps({"champion": name, "student": uri}) if as_json else f"{name}: {uri or 'no champion'}")


_YAML_HEAD = """\
# Written by `advdistill deploy --print`; a test compares them.
# With the environment variable ADVDISTILL_ROOT set to the root of the artifacts:
#   prefect deploy --all --prefect-file infra/prefect.yaml
# `advdistill deploy` registers the same, and the pools, the watch over dead runs and a nightly
# schedule that is switched off.
"""
