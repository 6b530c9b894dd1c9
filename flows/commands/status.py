"""`advdistill status`: the runs under a root."""

import json
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.run_record import RunRecord, read_runs

_ID_CHARS = 8


def show(root: str, as_json: bool) -> None:
    """Print the runs under a root, newest first."""
    runs = read_runs(root)
    if as_json:
        listed = [r.model_dump(mode="json", exclude={"config"}) | {"elapsed_s": _seconds(r)} for r in runs]
        print(json.dumps({"runs": listed}))
    elif runs:
        Console().print(_table(runs))
    else:
        print(f"No run under {root}; --root names another place.")


def _table(runs: Sequence[RunRecord]) -> Table:
    table = Table()
    ids = [r.run_id for r in runs]
    shown = _ID_CHARS  # enough for `report`; ids of runs on pools begin with the time
    while len({i[:shown] for i in ids}) < len(set(ids)):
        shown += 1
    table.add_column("run", no_wrap=True)
    for title in ("name", "state", "minutes", "stages"):
        table.add_column(title, overflow="fold")
    for r in runs:
        seconds = _seconds(r)
        minutes = "" if seconds is None else f"{seconds / 60:.1f}"
        table.add_row(r.run_id[:shown], escape(_name(r)), r.state, minutes, escape(_stages(r)))
    return table


def _name(run: RunRecord) -> str:
    """The name in the UI, which somebody may have given, and the recipe's where that is another."""
    return run.name if run.run_name in (None, run.name) else f"{run.run_name} (recipe {run.name})"


def _seconds(run: RunRecord) -> float | None:
    """How long a run took, or is under way; None where nobody knows."""
    return time.time() - run.started_at if run.state == "running" else run.seconds


def _stages(run: RunRecord) -> str:
    stages = [f"{label} {s.outcome}" for label, s in run.stages.items()]
    if run.ended_in:
        stages.append(f"{run.ended_in} {run.state}" + (f": {run.error}" if run.error else ""))
    elif run.error:
        stages.append(run.error)
    if at := run.under_way:
        minutes = f"for {(time.time() - at.started_at) / 60:.1f} min"
        stages.append(f"{at.label} under way {minutes}" + (f": {at.progress}" if at.progress else ""))
    return ", ".join(stages)
