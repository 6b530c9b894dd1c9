"""The champion's pointer: atomic, with a history, never back to what was rejected."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from advdistill_core.errors import InputError
from advdistill_core.store import ArtifactRef, Store
from flows import promotion
from flows.promotion import Champion, Difference


def ref(stage: str, content: str) -> ArtifactRef:
    return ArtifactRef(
        stage=stage, fingerprint=content * 4, uri=f"/x/{stage}/{content * 4}", rows=0, content_hash=content
    )


def champion(content: str) -> Champion:
    return Champion(
        student=ref("train", content),
        selection=ref("select", f"s{content}"),
        difference=Difference(value=0.1, low=0.05, high=0.15, num_questions=100),
        by="test",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def current(store: Store) -> str | None:
    found = promotion.read_line(store, "maths").champion
    return found.student.content_hash if found else None


def test_promote_and_roll_back(store: Store) -> None:
    assert current(store) is None
    for content in ("a", "b", "c"):
        promotion.promote(store, "maths", champion(content))
    assert current(store) == "c"
    promotion.rollback(store, "maths", "somebody")
    assert current(store) == "b"
    promotion.promote(store, "maths", champion("d"))
    promotion.rollback(store, "maths", "somebody")
    assert current(store) == "b", "not c, which had been rolled back"
    promotion.rollback(store, "maths", "somebody")
    promotion.rollback(store, "maths", "somebody")
    assert current(store) is None
    with pytest.raises(InputError, match="nothing to roll back"):
        promotion.rollback(store, "maths", "somebody")
    line = promotion.read_line(store, "maths")
    assert [e.action for e in line.history] == ["promote"] * 3 + ["rollback", "promote"] + ["rollback"] * 3
    assert len(line.champions) == 4
    assert set(line.rejected) == {"a", "b", "c", "d"}


def test_lines_are_apart(store: Store) -> None:
    promotion.promote(store, "maths", champion("a"))
    promotion.promote(store, "logic", champion("b"))
    assert current(store) == "a"
    assert set(promotion.lines(store)) == {"maths", "logic"}


def test_a_torn_pointer_is_an_error_not_an_empty_line(store: Store) -> None:
    promotion.promote(store, "maths", champion("a"))
    path = Path(store.files.path("champions/maths.json"))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match="maths"):
        promotion.promote(store, "maths", champion("b"))


def _promote_for_ever(root: str) -> None:
    store = Store(root)
    for i in range(100_000):
        promotion.promote(store, "maths", champion(f"{os.getpid()}-{i}"))


def test_killed_in_the_middle_the_pointer_is_whole(tmp_path: Path) -> None:
    """SIGKILL at any moment leaves a pointer that names one of its champions."""
    store = Store(str(tmp_path))
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=_promote_for_ever, args=(str(tmp_path),))
    writer.start()
    deadline = time.monotonic() + 60
    while not promotion.read_line(store, "maths").champions:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(100):
        line = promotion.read_line(store, "maths")  # never torn while it is being written
        assert line.current == len(line.champions) - 1
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    line = json.loads(Path(store.files.path("champions/maths.json")).read_text())
    assert line["current"] == len(line["champions"]) - 1 == len(line["history"]) - 1
    promotion.promote(store, "maths", champion("next"))  # the killed holder's lock is free
    assert current(store) == "next"
