"""The table tells of one pass: nothing older, nothing that failed, and what was run again."""

from pathlib import Path

import matrix
import pytest

pytestmark = pytest.mark.slow  # with the cells that it writes down


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of an earlier pass, which this one is to write over; the session's own is left alone."""
    monkeypatch.setattr(matrix, "_notes", [])
    monkeypatch.setenv(matrix.TABLE, str(tmp_path / "table.md"))
    monkeypatch.setenv(matrix.PASS, str(tmp_path / "pass"))
    monkeypatch.delenv(matrix.AGAIN, raising=False)
    monkeypatch.setattr(matrix, "_version", lambda table: {"commit": "abc", "changed": False})
    (tmp_path / "table.md").write_text("|  | SIGKILL |\n| --- | --- |\n| train | -9 → ran |\n")
    return tmp_path / "table.md"


def test_it_starts_empty_and_tells_what_failed_and_what_ran_again(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix.begin()
    matrix.note("weigh", "disk full", "1 → ran")
    matrix.note("load", "SIGKILL", "-9 → ran")
    assert "A pass under way" in table.read_text()
    matrix.failed("test_x.py::test_y[load]")
    matrix.end()
    text = table.read_text()
    assert "One pass at commit abc, " in text
    assert "2 cells passed, 1 test failed\n(`test_x.py::test_y[load]`)." in text
    assert "The tables have 4 cells, 2 of them empty." in text
    rows = "| load | -9 → ran |  |\n| weigh |  | 1 → ran |\n"
    assert f"|  | SIGKILL | disk full |\n| --- | --- | --- |\n{rows}" in text, "train was another pass's"

    monkeypatch.setenv(matrix.AGAIN, "after y was mended")
    matrix.begin()
    matrix.note("load", "disk full", "1 → ran")
    matrix.end()
    text = table.read_text()
    assert "2 cells passed, 1 test failed" in text
    assert "\n1 cell passed when run again at " in text
    assert "commit abc, 0 tests failed\n(load / disk full;\nafter y was mended)." in text
    assert "| load | -9 → ran | 1 → ran |" in text


def test_processes_of_one_pass_are_of_one_commit(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix.begin()
    matrix.note("load", "SIGKILL", "-9 → ran")
    matrix.end()
    matrix.begin()
    matrix.note(matrix.RUN + "load", "SIGKILL", "-9 → ran")
    matrix.end()
    assert "minutes in 2 processes:\n2 cells passed, 0 tests failed." in table.read_text()
    monkeypatch.setattr(matrix, "_version", lambda table: {"commit": "def", "changed": False})
    with pytest.raises(ValueError, match="got commit def, expected abc"):
        matrix.begin()
