"""Where the verification measurements are kept: one section each of one Markdown file."""

import os
import re
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "verification.md"
_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
DATA = Path(os.environ.get("ADVDISTILL_BENCH_DATA", _BESIDE))


def store_section(title: str, text: str) -> None:
    """Replace a section of the results, or add it."""
    RESULTS.parent.mkdir(exist_ok=True)
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Verification: measured\n"
    section = f"\n## {title}\n\n{text.strip()}\n"
    pattern = re.compile(rf"\n## {re.escape(title)}\n.*?(?=\n## |\Z)", re.DOTALL)
    new = pattern.sub(lambda _: section, old) if pattern.search(old) else old + section
    RESULTS.write_text(new, encoding="utf-8")


def markdown_table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; bars inside cells are escaped."""

    def line(cells: list[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(list(head)), "|" + "---|" * len(head), *[line(row) for row in rows]])
