"""What `advdistill gc` says: what goes, what stays, and why."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.commands.gc import Survey
from flows.run_record import RunRecord

#: Why artifacts stay, after a number of them.
_WHY = {
    "run": "that a run refers to (--keep-days N lets go of runs older than N days)",
    "champion": "that a champion refers to",
    "pin": "that are in pins.txt",
    "in use": "that are being made",
    "young": "younger than {age:g} h (with --min-age-h 0 these go, too)",
}


def as_object(found: Survey, deleted: bool) -> dict[str, Any]:
    """For `--json`."""
    return {
        "deleted": deleted,
        "artifacts": [asdict(item) for item in found.garbage],
        "runs": [_about(found, run) for run in found.runs],
        "kept": {reason: asdict(kept) for reason, kept in found.kept.items()},
    }


def show(found: Survey, root: str, deleted: bool, min_age_h: float) -> None:
    """For people."""
    verb = "Removed" if deleted else "Would remove"
    if found.garbage:
        Console().print(_table(found))
        size_bytes = sum(item.size_bytes for item in found.garbage)
        print(f"{verb} {_counted(len(found.garbage), size_bytes)}.")
    if found.runs:
        records = f"{len(found.runs)} run record{'' if len(found.runs) == 1 else 's'}"
        print(f"{verb} {records}; without one, `status` and `report` do not know the run:")
        for run in found.runs:
            print(f"  {_line(_about(found, run))}")
    if not found.garbage and not found.runs:
        print(f"Nothing to remove under {root}.")
    for reason, kept in found.kept.items():
        if kept.artifacts:
            why = _WHY[reason].format(age=min_age_h)
            print(f"Kept: {_counted(kept.artifacts, kept.size_bytes)}, {why}.")


def _about(found: Survey, run: RunRecord) -> dict[str, Any]:
    """A run of which the record goes; the report's page goes only with its artifact."""
    going = {item.name for item in found.garbage}
    stays = run.report and "/".join(run.report.split("/")[-3:-1]) not in going
    return {
        "run_id": run.run_id,
        "name": run.run_name or run.name,
        "state": run.state,
        "report": run.report,
        "report_goes": bool(run.report) and not stays,
    }


def _line(about: dict[str, Any]) -> str:
    line = f"{about['run_id']} {about['name']}, {about['state']}"
    if not about["report"]:
        return line
    return f"{line}; its report {'goes, too' if about['report_goes'] else 'stays: ' + about['report']}"


def _table(found: Survey) -> Table:
    table = Table()
    table.add_column("artifact", overflow="fold")  # to be copied whole into pins.txt
    table.add_column("why")
    table.add_column("MB", justify="right")
    for item in found.garbage:
        why = {"nothing refers to it": "unused"}.get(item.why, item.why)  # names need the room
        table.add_row(item.name, why, f"{item.size_bytes / 1e6:.2f}")
    return table


def _counted(number: int, size_bytes: int) -> str:
    return f"{number} artifact{'' if number == 1 else 's'}, {size_bytes / 1e6:.1f} MB"
