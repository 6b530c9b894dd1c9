"""`verify` over files: streams, keeps what it does not know, is atomic, names bad rows."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from advdistill_core.config import RewardsConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.progress import Event
from advdistill_core.rewards import Answer, Graded, Grader
from advdistill_core.rewards import files as rows_in_files
from advdistill_core.rewards.audit import Case, disagreements
from advdistill_core.rewards.judge_model import JudgeModel
from flows.commands.verify import verify_files

ROWS: list[dict[str, Any]] = [
    {"id": "a", "gold": "5", "prediction": "\\boxed{5}", "note": {"deep": [1, None]}},
    {"id": "b", "gold": 5, "prediction": "it is 6", "note": "ü"},
    {"id": "c", "gold": "", "prediction": "5", "note": None},
    {"id": "d", "gold": "5", "prediction": "none", "note": "\ud800"},
]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_verdicts_are_added_and_the_rest_is_kept(tmp_path: Path) -> None:
    seen: list[Event] = []
    source = _write(tmp_path / "in.jsonl", ROWS)
    counts = verify_files(source, tmp_path / "out.jsonl", "math", RewardsConfig(), seen.append)
    rows = _read(tmp_path / "out.jsonl")
    assert [(row["verdict"], row["extracted"]) for row in rows] == [
        ("correct", "5"),
        ("wrong", "6"),
        ("error", None),
        ("unparsed", None),
    ]
    assert [{k: row[k] for k in ("id", "gold", "prediction", "note")} for row in rows] == ROWS
    assert counts == {"rows": 4, "correct": 1, "wrong": 1, "error": 1, "unparsed": 1, "ungradable": 1}
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (4, 4, "rows")


def test_in_place_and_again(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.jsonl", ROWS)
    verify_files(path, path, "math")
    once = path.read_bytes()
    verify_files(path, path, "math")
    assert path.read_bytes() == once


def test_choices(tmp_path: Path) -> None:
    rows = [
        {"gold": "B", "prediction": "The answer is (B)", "n_choices": 4},
        {"gold": "B", "prediction": "The answer is (B)", "choices": ["x", "y"]},
        {"gold": "y", "prediction": "The answer is (B)", "choices": ["x", "y"]},
        {"gold": "H", "prediction": "The answer is (H)", "n_choices": 4},
    ]
    verify_files(_write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", "choice")
    assert [row["verdict"] for row in _read(tmp_path / "out.jsonl")] == [
        "correct",
        "correct",
        "correct",
        "error",
    ]


def test_parquet_both_ways(tmp_path: Path) -> None:
    rows = [{"gold": "5", "prediction": "5", "extra": i} for i in range(3)] + [
        {"gold": "5", "prediction": "?", "extra": 3}
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    verify_files(tmp_path / "in.parquet", tmp_path / "out.parquet", "math")
    verify_files(tmp_path / "in.parquet", tmp_path / "out.jsonl", "math")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["verdict"].to_pylist() == ["correct"] * 3 + ["unparsed"]
    assert table.to_pylist() == _read(tmp_path / "out.jsonl")
    assert table["extra"].type == pa.int64()


def test_an_empty_file(tmp_path: Path) -> None:
    assert verify_files(_write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl", "math")["rows"] == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"gold": "1", "predic', "row 2"),
        (b"[1]", "row 2"),
        (b'{"gold": "1"}', "row 2.*prediction"),
        (b'{"prediction": "1"}', "row 2.*gold"),
        (b'{"gold": null, "prediction": "1"}', "row 2 gold"),
        (b'{"gold": true, "prediction": "1"}', "row 2 gold"),
        (b'{"gold": "1", "prediction": 7}', "row 2 prediction"),
        (b'{"gold": "1", "prediction": "1", "choices": "AB"}', "row 2 choices"),
        (b'{"gold": "1", "prediction": "1", "n_choices": 99}', "row 2 n_choices"),
        (b"\xff\xfe", "row 2"),
        (b"[" * 100_000, "row 2"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, line: bytes, message: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"gold": "1", "prediction": "1"}\n' + line)
    target = tmp_path / "out.jsonl"
    target.write_text("what was there before")
    with pytest.raises(InputError, match=message) as caught:
        verify_files(source, target, "math")
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    assert target.read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    good = _write(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(InputError, match="can be read"):
        verify_files(tmp_path / "absent.jsonl", tmp_path / "out.jsonl", "math")
    with pytest.raises(InputError, match=r"\.jsonl or \.parquet"):
        verify_files(good, tmp_path / "out.txt", "math")
    with pytest.raises(InputError, match="Convert it to JSONL or Parquet"):
        verify_files(tmp_path / "in.csv", tmp_path / "out.jsonl", "math")
    with pytest.raises(InputError, match="can be written"):
        verify_files(good, tmp_path / "no" / "out.jsonl", "math")
    with pytest.raises(InputError, match="math"):
        verify_files(good, tmp_path / "out.jsonl", "maths")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="whole Parquet"):
        verify_files(tmp_path / "torn.parquet", tmp_path / "out.jsonl", "math")


def test_rows_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are written as they come: at no time is more than one of them held."""
    monkeypatch.setattr(rows_in_files, "BATCH_ROWS", 10)
    source = _write(tmp_path / "in.jsonl", [{"gold": "1", "prediction": "1"}] * 35)
    assert [len(batch) for batch in rows_in_files.read_batches(source)] == [10, 10, 10, 5]
    seen: list[int] = []
    verify_files(source, tmp_path / "out.jsonl", "math", progress=lambda event: seen.append(event.done))
    assert seen == [10, 20, 30, 35]


def test_disagreements_are_listed(tmp_path: Path) -> None:
    rows = [
        {"id": "same", "gold": "5", "prediction": "\\boxed{5}"},
        {"id": "clock", "gold": "\\text{4:30 p.m.}", "prediction": "\\boxed{4:30 \\text{ p.m.}}"},
        {"id": "correction", "gold": "42", "prediction": "\\boxed{10} and then \\boxed{42}"},
    ]
    source = _write(tmp_path / "in.jsonl", rows)
    counts = verify_files(source, tmp_path / "out.jsonl", "math", audit=tmp_path / "audit.jsonl")
    found = {row["id"]: (row["verdict"], row["second"]) for row in _read(tmp_path / "audit.jsonl")}
    assert found == {"clock": ("correct", "wrong"), "correction": ("correct", "wrong")}
    assert counts["disagreements"] == 2


def test_a_judge_model_is_asked_about_the_sample() -> None:
    cases = [Case(str(i), Answer("exact", "x", "y"), Graded("wrong", "y")) for i in range(20)]
    asked: list[int] = []

    def judge(answers: Any) -> list[str]:
        asked.append(len(answers))
        return ["correct", "wrong", "unsure", *["wrong"] * (len(answers) - 3)]

    with Grader(RewardsConfig(num_workers=1)) as grader:
        rows = disagreements(cases, grader, sample=5, judge_model=judge)
    assert asked == [5]
    assert [(row["judge"], row["second"]) for row in rows] == [("correct", "")]


class _Endpoint(BaseHTTPRequestHandler):
    """Says yes where the reference stands in the response."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
        reference, response = body["messages"][0]["content"].split("Reference answer:\n")[1].split("Response")
        said = "Yes." if reference.strip() in response else "no"
        payload = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: Any) -> None:
        pass


def test_a_configured_judge_model_is_asked_in_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVDISTILL_JUDGE_API_KEY", "secret")
    rows = [
        {"id": "agree", "gold": "olleh", "prediction": "olleh"},
        {"id": "differ", "gold": "olleh", "prediction": "olleh, I should say"},
    ]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        config = RewardsConfig(judge_url=f"http://127.0.0.1:{server.server_port}/v1/", judge_model="m")
        source = _write(tmp_path / "in.jsonl", rows)
        verify_files(source, tmp_path / "out.jsonl", "exact", config, audit=tmp_path / "audit.jsonl")
    finally:
        server.shutdown()
        server.server_close()
    found = {row["id"]: (row["verdict"], row["judge"]) for row in _read(tmp_path / "audit.jsonl")}
    assert found == {"differ": ("wrong", "correct")}
    assert {(a["path"], a["key"], a["model"]) for a in _Endpoint.asked} == {
        ("/v1/chat/completions", "Bearer secret", "m")
    }


def test_a_judge_model_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(StageError, match="judge model"):
        JudgeModel("http://127.0.0.1:9/v1", "m")([Answer("exact", "x", "y")])
