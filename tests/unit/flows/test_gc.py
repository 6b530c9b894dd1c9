"""What gc may remove: nothing that a run, a champion, a pin or a living process needs."""

import time
from pathlib import Path

import pyarrow as pa
import pytest

from advdistill_core.store import ArtifactRef, Store
from flows import promotion
from flows.commands.gc import drop_old_runs, find_garbage, remove
from flows.promotion import Champion
from flows.run_record import RunRecord, StageRecord


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


def record(store: Store, run_id: str, *refs: ArtifactRef, days_ago: float = 0) -> None:
    stages = {r.stage: StageRecord(stage=r.stage, outcome="ran", rows=0, seconds=0, uri=r.uri) for r in refs}
    started = time.time() - days_ago * 86400
    run = RunRecord(run_id=run_id, name="n", state="completed", started_at=started, stages=stages)
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
    assert drop_old_runs(store.files.uri, 30) == 1
    assert names(store) == {"generate/" + "a" * 32}


def test_what_is_being_made_stays(store: Store) -> None:
    make(store, "generate", "a" * 32, finish=False)
    with store.lock("generate", "a" * 32):
        assert names(store) == set()
    assert names(store) == {"generate/" + "a" * 32}
