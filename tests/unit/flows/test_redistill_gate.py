"""The gate: the whole paired interval above the margin, on the same questions."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from advdistill_core.store import ArtifactRef, Store
from advdistill_core.store.tables import SCORES, from_rows
from flows.promotion import Difference
from flows.redistill import compare, judge, notify


def scores(
    store: Store, name: str, correct: list[bool | None], order: list[int] | None = None
) -> ArtifactRef:
    out = store.begin("evaluate", "1", name * 32, "scores")
    rows = [
        {
            "set": "heldout",
            "question_id": f"q{i}",
            "model": name,
            "sample_id": 0,
            "text": "",
            "verdict": {True: "correct", False: "wrong", None: "timeout"}[correct[i]],
            "num_tokens": 1,
            "finish_reason": "stop",
            "extracted": None,
        }
        for i in order or range(len(correct))
    ]
    out.write_tables(iter([from_rows(rows, SCORES)]))
    return out.commit({}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def verdict(store: Store, old: list[bool | None], new: list[bool | None], margin: float = 0.0) -> str:
    return judge(compare(store, scores(store, "a", old), scores(store, "b", new), 0.95), margin, False)


def test_a_clearly_better_student_is_promoted_and_a_worse_one_is_not(store: Store) -> None:
    weak, strong = [i < 20 for i in range(100)], [i < 60 for i in range(100)]
    assert verdict(store, weak, strong) == "better"
    assert verdict(store, strong, weak) == "not-better"
    assert verdict(store, strong, strong) == "not-better"


def test_a_margin_asks_for_more(store: Store) -> None:
    weak, strong = [i < 20 for i in range(100)], [i < 60 for i in range(100)]
    assert verdict(store, weak, strong, margin=0.25) == "better"
    assert verdict(store, weak, strong, margin=0.35) == "not-better"


def test_a_small_gain_is_not_told_from_luck(store: Store) -> None:
    assert verdict(store, [i < 20 for i in range(100)], [i < 23 for i in range(100)]) == "not-better"


def test_questions_are_paired_by_name_not_by_place(store: Store) -> None:
    correct = [i % 3 == 0 for i in range(60)]
    old = scores(store, "a", correct)
    new = scores(store, "b", correct, order=list(reversed(range(60))))
    found = compare(store, old, new, 0.95)
    assert found.value == 0
    assert found.high < 0.06, "60 pairs that agree; read by place they would seem to differ"


def test_ungraded_answers_count_neither_way(store: Store) -> None:
    old = scores(store, "a", [False] * 40 + [None] * 40)
    new = scores(store, "b", [True] * 40 + [False] * 40)
    assert compare(store, old, new, 0.95).num_questions == 40
    nothing = compare(store, scores(store, "c", [None] * 5), scores(store, "d", [True] * 5), 0.95)
    assert judge(nothing, -1.0, False) == "not-better"


def test_a_decision_is_told_and_costs_nothing_when_nobody_listens() -> None:
    heard: list[dict[str, object]] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204 if self.path == "/yes" else 500)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ear) as server, disable_run_logger():
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        notify(f"{address}/yes", {"decision": "promoted"})
        notify(f"{address}/no", {"decision": "refused"})
        server.shutdown()
    with disable_run_logger():
        notify(address, {"decision": "lost"})
    assert [message["decision"] for message in heard] == ["promoted", "refused"]


def test_what_was_rejected_does_not_come_again() -> None:
    better = Difference(value=0.4, low=0.3, high=0.5, num_questions=100)
    assert judge(better, 0.0, True) == "rejected-before"
