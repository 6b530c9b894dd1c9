"""The figures of the benches: how a script tells one, and the table in which they are kept."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

QUICK = "--quick"
_MARK = "RATIO "
_BEGIN, _END = "<!-- the table: written by tests.bench -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Row:
    """A figure beside a peer's, measured in the same run.

    Args:
        figure: what was measured; with `peer` it names the row.
        ours: our value, with its unit.
        theirs: the peer's.
        ratio: how many times better ours is, or None where that says nothing.
        to_reach: what was set out to be reached.
        met: whether it was; None where the run was too short to say.
        measured: date, machine and versions; filled in by the command.
    """

    figure: str
    peer: str
    ours: str
    theirs: str
    ratio: float | None
    to_reach: str
    met: bool | None
    note: str = ""
    measured: str = ""

    @property
    def verdict(self) -> str:
        return {True: "met", False: "**not met**", None: "not said"}[self.met]

    def cells(self) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.figure, self.peer, self.ours, self.theirs, ratio, self.to_reach, self.verdict, self.note]


HEAD = ["figure", "peer", "ours", "theirs", "ratio", "to reach", "", "note"]


def tell(row: Row) -> None:
    """Print a row for the command that started this script."""
    print(_MARK + json.dumps(asdict(row)), flush=True)


def tell_share(figure: str, peer: str, ours: float, theirs: float, unit: str, at_least: float) -> None:
    """Print the row of a speed that must reach a share of the peer's."""
    said = [f"{value:.1f} {unit}" for value in (ours, theirs)]
    tell(Row(figure, peer, *said, ours / theirs, f"{at_least:g}x", ours / theirs >= at_least))


def told(line: str) -> Row | None:
    """The row of a line of output, if it is one."""
    return Row(**json.loads(line.removeprefix(_MARK))) if line.startswith(_MARK) else None


def keep(folder: Path, new: Iterable[Row]) -> list[Row]:
    """Put rows in the place of older ones of their name, keep the others, write the table.

    A row of a short run takes the place of another such row only.

    The rows are in `rows.json`; the table stands in `README.md` between two marks, and what
    is written round it by hand stays.
    """
    kept = folder / "rows.json"
    rows = [Row(**row) for row in json.loads(kept.read_text(encoding="utf-8"))] if kept.exists() else []
    by_name = {(row.figure, row.peer): row for row in rows}
    for row in new:
        before = by_name.get((row.figure, row.peer))
        if not (before and QUICK in row.measured and QUICK not in before.measured):
            by_name[row.figure, row.peer] = row
    rows = list(by_name.values())
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Measured\n\n{_BEGIN}\n{_END}\n"
    before, rest = text.split(_BEGIN)
    page.write_text(before + _BEGIN + _table(rows) + _END + rest.split(_END)[1], encoding="utf-8")
    return rows


def _table(rows: list[Row]) -> str:
    lines = ["", "", _line([*HEAD, "measured"]), "|" + "---|" * (len(HEAD) + 1)]
    return "\n".join([*lines, *(_line([*row.cells(), row.measured]) for row in rows), "", ""])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
