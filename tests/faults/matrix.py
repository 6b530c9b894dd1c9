"""The outcomes of the cells of one pass, and the tables of them.

With ADVDISTILL_FAULT_TABLE=FILE.md the tests of a pass write FILE.md. It starts empty: what an
earlier pass found is not taken over. Several processes are one pass if ADVDISTILL_FAULT_PASS
names the same folder for each, where they keep what they found; it must be one commit. A cell
that failed may be run again by a process with ADVDISTILL_FAULT_AGAIN="why", and the head of
the table then says so.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import STEPS

TABLE, PASS, AGAIN = (f"ADVDISTILL_FAULT_{name}" for name in ("TABLE", "PASS", "AGAIN"))
RUN = "a run, in "
#: In their order; the first are those that a run as a whole is ended by.
COLUMNS = [
    "SIGKILL",
    "SIGTERM",
    "SIGINT",
    "disk full",
    "store gone and back",
    "read-only store",
    "S3 away for 60 s",
    "torn file",
    "flipped file",
    "silent flip, read",
    "clock jump",
    "server restart",
    "database locked",
    "out of memory",
    "two writers",
    "lock of a dead holder",
    "claim of a dead holder",
]
Cells = dict[tuple[str, str], str]

_ABOUT = """
Written by `ADVDISTILL_FAULT_TABLE=infra/fault-matrix.md pytest tests/faults -m "slow or not slow"`;
`infra/README.md` says what the faults are and what a user sees. A cell tells the exit code of the
command that the fault met (minus the signal that ended it) and, after the arrow, how the same
command found the stage then: `ran` anew, `resumed` from what was kept, or `cached`, since the fault
came when all was done. Each cell also passed these checks: nothing that was finished before is
lost, the tables are those of an undisturbed run, and no process and no stray file is left.

"""
_STAGES = """## Every stage

SIGINT, the server's restart and its locked database met a whole run, against a real Prefect server,
while that stage was at a file operation in its middle; the other faults met the stage itself.

"""
_RUNS = """
## The run as a whole

The run's own process is ended, or its store taken away, at any moment of a stage.

"""


@dataclass
class Pass:
    """What the processes of one pass noted so far."""

    sessions: list[dict[str, Any]] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)


class Notes:
    """What this process notes, and the table, if one is asked for.

    Raises:
        ValueError: the folder is that of a pass at another commit.
    """

    def __init__(self) -> None:
        self.table = os.environ.get(TABLE)
        self.own: Path | None = None
        if not self.table:
            return
        folder = Path(os.environ.get(PASS) or tempfile.mkdtemp(prefix="faults-"))
        folder.mkdir(parents=True, exist_ok=True)
        session = {**_version(self.table), "again": os.environ.get(AGAIN, "")}
        for earlier in [] if session["again"] else read(folder).sessions:
            if not earlier["again"] and earlier["commit"] != session["commit"]:
                raise ValueError(f"{folder}: got commit {session['commit']}, expected {earlier['commit']}")
        self.own = folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        self.add(session=session)

    def add(self, **what: Any) -> None:
        """Keep a note, and write the table of all notes of the pass."""
        if self.table and self.own:
            with open(self.own, "a", encoding="utf-8") as file:
                file.write(json.dumps({**what, "at": time.time()}) + "\n")
            whole = Path(f"{self.table}.{os.getpid()}")
            whole.write_text(render(read(self.own.parent)), encoding="utf-8")
            whole.replace(self.table)


_notes: list[Notes] = []


def begin() -> None:
    """Begin this process's share of a pass."""
    _notes[:] = [Notes()]


def end() -> None:
    """Note that this process is through."""
    _add(ended=True)


def note(row: str, column: str, outcome: str) -> None:
    """Note the outcome of a cell whose test is through."""
    assert column in COLUMNS, column
    _add(cell=[row, column, outcome])


def failed(test: str) -> None:
    """Note a test that failed."""
    _add(failed=test)


def _add(**what: Any) -> None:
    for notes in _notes:
        notes.add(**what)


def _version(table: str) -> dict[str, Any]:
    """The commit, and whether files other than the table differ from it."""
    here = Path(__file__).parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True).stdout

    touched = {here / line[3:] for line in git("status", "--porcelain").splitlines()}
    return {
        "commit": git("rev-parse", "--short=8", "HEAD").strip() or "unknown",
        "changed": bool(touched - {Path(table).resolve()}),
    }


def read(folder: Path) -> Pass:
    """Everything that the processes of a pass noted, each note with its session's fields."""
    found = Pass()
    for path in sorted(folder.glob("*.jsonl")):
        first, *rest = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        session = {**first["session"], "began": first["at"], "last": first["at"], "ended": False}
        found.sessions.append(session)
        for one in rest:
            session["last"] = one["at"]
            session["ended"] = session["ended"] or "ended" in one
            for kind, kept in (("cell", found.cells), ("failed", found.failed)):
                if kind in one:
                    kept.append({**one, "session": session})
    return found


def render(found: Pass) -> str:
    """The head and both tables as Markdown."""
    cells: Cells = {(c["cell"][0], c["cell"][1]): c["cell"][2] for c in found.cells}
    grids = [
        _grid({place: cell for place, cell in cells.items() if place[0].startswith(RUN) == of_runs})
        for of_runs in (False, True)
    ]
    size = sum(len(row) - 1 for grid in grids for row in grid[2:])
    text = (
        f"# The fault matrix\n\n{_head(found, size, size - len(cells))}{_ABOUT}{_STAGES}{_markdown(grids[0])}"
    )
    return text + (f"{_RUNS}{_markdown(grids[1])}" if len(grids[1]) > 2 else "")


def _head(found: Pass, size: int, empty: int) -> str:
    """When, at which commit, how long, and how many cells.

    Args:
        size: number of cells of both tables, the empty ones included.
    """
    first = [s for s in found.sessions if not s["again"]]
    began, last = min(s["began"] for s in first), max(s["last"] for s in first)
    commit = ", ".join(dict.fromkeys(s["commit"] for s in first))
    changed = " with changes" if any(s["changed"] for s in first) else ""
    what = "One pass" if all(s["ended"] for s in first) else "A pass under way"
    how = f"in {len(first)} processes" if len(first) > 1 else "in one process"
    passed = sum(1 for c in found.cells if not c["session"]["again"])
    lost = [f["failed"] for f in found.failed if not f["session"]["again"]]
    lines = [
        f"{what} at commit {commit}{changed}, {_utc(began, '%Y-%m-%d %H:%M')} to {_utc(last, '%H:%M')} UTC, "
        f"{(last - began) / 60:.0f} minutes {how}:",
        f"{_count(passed, 'cell')} passed, {_count(len(lost), 'test')} failed"
        + "".join(f"\n(`{name}`)" for name in lost)
        + ".",
        f"The tables have {_count(size, 'cell')}, {empty} of them empty.",
    ]
    for session in (s for s in found.sessions if s["again"]):
        again = [c["cell"][:2] for c in found.cells if c["session"] == session]
        names = ", ".join(" / ".join(cell) for cell in again)
        bad = sum(1 for f in found.failed if f["session"] == session)
        lines += [
            f"{_count(len(again), 'cell')} passed when run again at {_utc(session['began'], '%H:%M')} UTC, "
            f"commit {session['commit']}, {_count(bad, 'test')} failed",
            f"({names or 'none'};",
            f"{session['again']}).",
        ]
    return "\n".join(lines) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _utc(at: float, form: str) -> str:
    return time.strftime(form, time.gmtime(at))


def _grid(cells: Cells) -> list[list[str]]:
    """Lines of a table: stages in their order, faults in theirs."""
    order = [*STEPS, *(RUN + name for name in STEPS)]
    rows = sorted({row for row, _ in cells}, key=order.index)
    columns = [name for name in COLUMNS if any(column == name for _, column in cells)]
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    return lines + [[row, *(cells.get((row, column), "") for column in columns)] for row in rows]


def _markdown(lines: list[list[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
