"""The outcomes of the cells, kept as they come, and the table of them.

With ADVDISTILL_FAULT_TABLE=FILE.md each cell that is run is noted in FILE.md, beside those of
earlier runs; a cell that is run again replaces what stood there.
"""

import os
import re
from pathlib import Path

_EMPTY = ""


def note(row: str, column: str, outcome: str) -> None:
    """Note the outcome of a cell, if a table is asked for."""
    place = os.environ.get("ADVDISTILL_FAULT_TABLE")
    if place:
        path = Path(place)
        cells, rows, columns = read(path)
        cells[row, column] = outcome
        rows, columns = _with(rows, row), _with(columns, column)
        path.write_text(render(cells, rows, columns), encoding="utf-8")


def read(path: Path) -> tuple[dict[tuple[str, str], str], list[str], list[str]]:
    """The cells of a table as it was written, and the order of its rows and columns."""
    if not path.exists():
        return {}, [], []
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("|")]
    grid = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    columns = grid[0][1:]
    cells = {
        (row[0], column): cell
        for row in grid[2:]
        for column, cell in zip(columns, row[1:], strict=True)
        if cell != _EMPTY
    }
    return cells, [row[0] for row in grid[2:]], columns


def render(cells: dict[tuple[str, str], str], rows: list[str], columns: list[str]) -> str:
    """The table as Markdown."""
    lines = [["stage", *columns], ["---"] * (len(columns) + 1)]
    lines += [[row, *(cells.get((row, column), _EMPTY) for column in columns)] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _with(names: list[str], name: str) -> list[str]:
    return names if name in names else [*names, name]
