"""The command of all benches: rows of a script, rows that are kept, scripts that fail."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
TELLS = """
import sys
from rows import Row, tell
print("at work")
tell(Row("speed", sys.argv[1], "30/s", "10/s", 3.0, "2x", True))
tell(Row("size", sys.argv[1], "9 | 8", "1", None, "0", False, "why"))
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/bench"))
    import tests.bench.__main__ as command

    return command


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "tells.py"
    path.write_text(TELLS, encoding="utf-8")
    return str(path)


def _table(folder: Path) -> list[list[str]]:
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    return [line.split(" | ") for line in lines if line.startswith("| ")][1:]


def test_new_rows_replace_their_own_and_older_ones_stay(
    bench: ModuleType, script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    old = [
        bench.Row("memory", "other", "1", "2", 2.0, "1x", True, "", "2020-01-01"),
        bench.Row("speed", "peer", "5/s", "10/s", 0.5, "2x", False, "", "2020-01-01"),
    ]
    bench.keep(folder, old)
    page = folder / "README.md"
    page.write_text(page.read_text("utf-8").replace("# Measured", "# Mine") + "by hand\n", "utf-8")

    tiny = bench.Bench("tiny", script, ["peer", "0"])
    never = bench.Bench("never", script, ["nobody", "0"])
    assert bench.main(["--results", str(folder), "--only", "tiny"], [tiny, never]) == 0

    memory, speed, size = _table(folder)
    assert (memory[0], memory[-1]) == ("| memory", "2020-01-01 |")
    assert speed[:5] == ["| speed", "peer", "30/s", "10/s", "3.00"]
    assert speed[6] == "met"
    assert "2020-01-01" not in speed[-1]
    assert f"Python {sys.version_info.major}." in speed[-1]
    assert "**not met**" in size
    assert "9 \\| 8" in size
    text = page.read_text("utf-8")
    assert text.startswith("# Mine")
    assert text.endswith("by hand\n")
    shown = capsys.readouterr().out
    assert "at work" in shown
    assert "not met" in shown


def test_a_script_that_fails_leaves_what_it_told_and_ends_with_1(
    bench: ModuleType, script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    benches = [
        bench.Bench("breaks", script, ["peer", "3"]),
        bench.Bench("absent", script, ["peer", "0"], python="trl"),
        bench.Bench("alone", script, ["{peers}", "0"]),
    ]
    assert bench.main(["--results", str(folder), "--peers", str(tmp_path)], benches) == 1
    assert len(json.loads((folder / "rows.json").read_text("utf-8"))) == 2
    said = capsys.readouterr().err
    assert "breaks: tells.py ended with 3." in said.replace(script, "tells.py")
    assert "absent: " in said
    assert "alone: " in said
    assert "make bench-env" in said


def test_quick_runs_never_overwrite_the_tables_of_long_ones(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "args.py"
    asked.write_text("import sys; print(sys.argv)", encoding="utf-8")
    one = bench.Bench("one", str(asked), ["--out", "{results}/x.md"], ["--rounds", "1"])
    words = {"ours": sys.executable, "results": str(tmp_path), "data": str(tmp_path)}
    _, failure = bench.run(one, words, quick=True)
    assert "told no figure" in failure
    assert f"'--out', '{os.devnull}', '--rounds', '1'" in capsys.readouterr().out


def test_every_script_is_there(bench: ModuleType) -> None:
    assert [one.script for one in bench.BENCHES if not (bench.HERE / one.script).is_file()] == []
    assert len({one.name for one in bench.BENCHES}) == len(bench.BENCHES)


def test_a_row_of_a_quick_run_replaces_no_long_one(tmp_path: Path) -> None:
    from tests.bench.rows import Row, keep

    def row(measured: str, ours: str) -> Row:
        return Row("speed", "peer", ours, "1/s", None, "", None, measured=measured)

    keep(tmp_path, [row("then", "3/s")])
    assert [r.ours for r in keep(tmp_path, [row("now, --quick", "9/s")])] == ["3/s"]
    assert [r.ours for r in keep(tmp_path, [row("now", "4/s")])] == ["4/s"]
