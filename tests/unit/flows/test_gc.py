"""What gc may remove: nothing that a run, a champion, a pin or a living process needs."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from advdistill_core.store import ArtifactRef, Store
from flows import alive, cli, promotion
from flows.commands.gc import Kept, drop_runs, find_garbage, remove, survey
from flows.promotion import Champion
from flows.run_record import RunRecord, StageRecord, read_runs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def make(store: Store, stage: str, fingerprint: str, finish: bool = True) -> ArtifactRef:
    out = store.begin(stage, "1", fingerprint, None)
    out.write_shard("shard-0", pa.table({"x": [1, 2, 3]}))
    out.write_file("data.txt", b"x" * 1000)
    if finish:
        return out.commit({}, {})
    return ArtifactRef(stage=stage, fingerprint=fingerprint, uri="", rows=0, content_hash="")


def record(
    store: Store, run_id: str, *refs: ArtifactRef, days_ago: float = 0, state: str = "completed"
) -> None:
    stages = {r.stage: StageRecord(stage=r.stage, outcome="ran", rows=0, seconds=0, uri=r.uri) for r in refs}
    started = time.time() - days_ago * 86400
    report = next((f"{ref.uri}/report.html" for ref in refs if ref.stage == "publish"), None)
    run = RunRecord(run_id=run_id, name="n", state=state, started_at=started, stages=stages, report=report)
    store.files.write(f"runs/{run_id}.json", run.model_dump_json().encode())


def names(store: Store, **options: float) -> set[str]:
    return {item.name for item in find_garbage(store.files.uri, **{"min_age_h": 0, **options})}


def test_what_is_referred_to_stays(store: Store) -> None:
    used, pinned = make(store, "generate", "a" * 32), make(store, "generate", "b" * 32)
    student, selection = make(store, "train", "c" * 32), make(store, "select", "d" * 32)
    make(store, "verify", "e" * 32)
    make(store, "train", "f" * 32, finish=False)
    record(store, "r1", used)
    promotion.promote(store, "default", Champion(student=student, selection=selection))
    promotion.promote(store, "default", Champion(student=used, selection=selection))
    store.files.write("pins.txt", f"{pinned.stage}/{pinned.fingerprint}\n".encode())
    found = {item.name: item for item in find_garbage(store.files.uri, min_age_h=0)}
    assert set(found) == {"verify/" + "e" * 32, "train/" + "f" * 32}
    assert found["train/" + "f" * 32].why == "unfinished"
    assert found["verify/" + "e" * 32].size_bytes > 1000
    assert names(store, min_age_h=1) == set(), "young artifacts may be about to be used"


def test_finding_removes_nothing_and_removing_only_what_was_found(store: Store) -> None:
    kept, lost = make(store, "generate", "a" * 32), make(store, "verify", "b" * 32)
    record(store, "r1", kept)
    garbage = find_garbage(store.files.uri, min_age_h=0)
    assert store.find("verify", lost.fingerprint)
    assert remove(store.files.uri, garbage) == sum(item.size_bytes for item in garbage)
    assert store.find("verify", lost.fingerprint) is None
    assert store.find("generate", kept.fingerprint)
    assert names(store) == set()


def test_old_runs_can_be_let_go(store: Store) -> None:
    old, new = make(store, "generate", "a" * 32), make(store, "generate", "b" * 32)
    record(store, "old", old, days_ago=40)
    record(store, "new", new, days_ago=1)
    assert names(store) == set()
    assert names(store, keep_days=30) == {"generate/" + "a" * 32}
    found = survey(store.files.uri, 30, 0)
    assert [run.run_id for run in found.runs] == ["old"]
    drop_runs(store.files.uri, found.runs)
    assert [run.run_id for run in read_runs(store.files.uri)] == ["new"]
    assert names(store) == {"generate/" + "a" * 32}


def test_what_is_being_made_stays(store: Store) -> None:
    make(store, "generate", "a" * 32, finish=False)
    with store.lock("generate", "a" * 32):
        assert names(store) == set()
    assert names(store) == {"generate/" + "a" * 32}


def test_the_rest_is_counted_by_what_keeps_it(store: Store) -> None:
    used, pinned = make(store, "generate", "a" * 32), make(store, "generate", "b" * 32)
    student, selection = make(store, "train", "c" * 32), make(store, "select", "d" * 32)
    make(store, "load", "e" * 32)
    make(store, "weigh", "f" * 32, finish=False)
    record(store, "r1", used, student)  # the student counts once
    promotion.promote(store, "default", Champion(student=student, selection=selection))
    store.files.write("pins.txt", f"{pinned.stage}/{pinned.fingerprint}\n".encode())
    with store.lock("weigh", "f" * 32):
        found = survey(store.files.uri)
    assert found.garbage == []
    counts = {reason: kept.artifacts for reason, kept in found.kept.items()}
    assert counts == {"run": 2, "champion": 1, "pin": 1, "in use": 1, "young": 1}
    assert found.kept["run"].size_bytes > 2000
    assert survey(store.files.uri, min_age_h=0).kept["young"] == Kept()


def test_a_run_under_way_is_not_let_go_of(store: Store) -> None:
    used = make(store, "generate", "a" * 32)
    record(store, "r1", used, days_ago=1, state="running")
    descriptor = alive.hold(store, "r1")
    try:
        assert survey(store.files.uri, keep_days=0, min_age_h=0).runs == []
        assert names(store, keep_days=0) == set()
    finally:
        os.close(descriptor)
    assert [run.run_id for run in survey(store.files.uri, 0, 0).runs] == ["r1"]


def test_records_and_logs_go_with_their_artifact_and_its_lock_stays(store: Store) -> None:
    lost, kept = make(store, "generate", "a" * 32), make(store, "generate", "b" * 32)
    for ref in (lost, kept):
        with store.lock(ref.stage, ref.fingerprint):
            store.files.write(f".records/generate-{ref.fingerprint}-0123456789ab", b"{}")
            store.files.write(f"logs/generate/{ref.fingerprint}/server.log", b"ready")
    record(store, "r1", kept)
    remove(store.files.uri, find_garbage(store.files.uri, min_age_h=0))
    assert store.files.names(".records") == [f"generate-{kept.fingerprint}-0123456789ab"]
    assert not store.files.exists(f"logs/generate/{lost.fingerprint}")
    assert store.files.exists(f"logs/generate/{kept.fingerprint}/server.log")
    assert store.files.names(".locks") == [f"generate-{f * 32}.lock" for f in "ab"], "it may be waited for"


@pytest.fixture
def gc(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `gc` prints on 80 columns."""

    def ask(*options: str) -> str:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["advdistill", "gc", "--root", store.files.uri, *options])
        assert cli.guarded(cli.app) == 0
        return capsys.readouterr().out

    return ask


def test_it_says_what_stays_and_how_to_take_it(store: Store, gc: Any) -> None:
    record(store, "r1", make(store, "generate", "a" * 32))
    make(store, "verify", "b" * 32)
    told = gc()
    assert "Nothing to remove" in told
    assert "1 artifact, 0.0 MB, younger than 24 h (with --min-age-h 0 these go, too)." in told
    assert "1 artifact, 0.0 MB, that a run refers to (--keep-days N lets go" in told
    kept = json.loads(gc("--json"))["kept"]
    assert (kept["young"]["artifacts"], kept["run"]["artifacts"]) == (1, 1)
    assert "younger than 0.5 h" in gc("--min-age-h", "0.5")


def test_names_are_whole_on_80_columns(store: Store, gc: Any) -> None:
    longest = make(store, "gate_responses", "0123456789abcdef" * 2, finish=False)
    told = gc("--min-age-h", "0")
    assert f" {longest.stage}/{longest.fingerprint} " in told
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize(("age_h", "of_report"), [("0", "goes, too"), ("24", "stays: ")])
def test_runs_that_go_are_named_before_and_after(store: Store, gc: Any, age_h: str, of_report: str) -> None:
    report = make(store, "publish", "a" * 32)
    record(store, "run-one", report, days_ago=1)
    options = ("--keep-days", "0", "--min-age-h", age_h)
    (listed,) = json.loads(gc(*options, "--json"))["runs"]
    assert (listed["run_id"], listed["report_goes"]) == ("run-one", age_h == "0")
    line = f"run-one n, completed; its report {of_report}"
    for told, verb in ((gc(*options), "Would remove"), (gc(*options, "--delete"), "Removed")):
        assert f"{verb} 1 run record; without one, `status` and `report` do not know the run:" in told
        assert line in told
    assert read_runs(store.files.uri) == []
    assert (store.find("publish", report.fingerprint) is None) == (age_h == "0")
    assert "run record" not in gc(*options)
