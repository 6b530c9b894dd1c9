"""The outcomes of the cells, kept as they come, and the table of them.

With ADVDISTILL_FAULT_TABLE=FILE.md each cell that is run is noted in FILE.md, beside those of
earlier runs; a cell that is run again replaces what stood there.
"""

import os
import re
from pathlib import Path

from pipeline import STEPS

Cells = dict[tuple[str, str], str]

_ABOUT = """# The fault matrix

Written by `ADVDISTILL_FAULT_TABLE=infra/fault-matrix.md pytest tests/faults -m "slow or not slow"`;
`infra/README.md` says what the faults are and what a user sees. A cell tells the exit code of the
command that the fault met (minus the signal that ended it) and, after the arrow, how the same
command found the stage then: `ran` anew, `resumed` from what was kept, or `cached`, since the fault
came when all was done. Each cell also passed these checks: nothing that was finished before is
lost, the tables are those of an undisturbed run, and no process and no stray file is left. An empty
cell was not run for that row: what is a matter of the whole run is run for some stages.

"""


def note(row: str, column: str, outcome: str) -> None:
    """Note the outcome of a cell, if a table is asked for."""
    place = os.environ.get("ADVDISTILL_FAULT_TABLE")
    if place:
        path = Path(place)
        cells = read(path) | {(row, column): outcome}
        path.write_text(_ABOUT + render(cells), encoding="utf-8")


def read(path: Path) -> Cells:
    """The cells of a table as it was written."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("|")]
    grid = [[cell.strip() for cell in re.split(r"\|", line)[1:-1]] for line in lines]
    columns = grid[0][1:]
    return {
        (row[0], column): cell
        for row in grid[2:]
        for column, cell in zip(columns, row[1:], strict=True)
        if cell
    }


def render(cells: Cells) -> str:
    """The table as Markdown: stages in their order, then whole runs."""
    rows = sorted(dict.fromkeys(row for row, _ in cells), key=lambda r: [*STEPS, r].index(r))
    columns = list(dict.fromkeys(column for _, column in cells))
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[row, *(cells.get((row, column), "") for column in columns)] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
