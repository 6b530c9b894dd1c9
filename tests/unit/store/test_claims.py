"""Claims: one holder at a time, none that outlives its holder for long."""

import threading
import time
import uuid

import pytest

from advdistill_core.store.claims import FOLDER, claim, is_held
from advdistill_core.store.files import Files

LEASE_S = 0.6


@pytest.fixture
def files() -> Files:
    return Files(f"memory://{uuid.uuid4().hex}")


def test_one_holder_at_a_time(files: Files) -> None:
    """Ten workers add to a number that they read, wait over, and write."""
    files.write("number", b"0")

    def add() -> None:
        with claim(files, "a", lease_s=60):
            number = int(files.read("number"))
            time.sleep(0.02)
            files.write("number", str(number + 1).encode())

    workers = [threading.Thread(target=add) for _ in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert files.read("number") == b"10"
    assert len(files.names(f"{FOLDER}/a")) == 1, "what went before is cleared away"
    assert not is_held(files, "a")


def test_a_living_holder_keeps_its_claim_beyond_the_lease(files: Files) -> None:
    order, waited = [], []

    def second() -> None:
        with claim(files, "a", lambda: waited.append(True), lease_s=LEASE_S):
            order.append("second")

    with claim(files, "a", lease_s=LEASE_S):
        assert is_held(files, "a")
        other = threading.Thread(target=second)
        other.start()
        time.sleep(3 * LEASE_S)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
    assert waited == [True], "told once"


def test_the_claim_of_a_dead_holder_lapses(files: Files) -> None:
    """A holder that was killed neither renews nor releases: its claim just stays there."""
    files.create(f"{FOLDER}/a/00000007.json", b'{"held": true, "beat": "x"}')
    began = time.monotonic()
    with claim(files, "a", lease_s=LEASE_S):
        assert time.monotonic() - began > LEASE_S
        assert files.names(f"{FOLDER}/a") == ["00000008.json"], "the next number, never a lower one"


def test_a_number_is_taken_once(files: Files) -> None:
    assert files.create("x", b"1")
    assert not files.create("x", b"2")
    assert files.read("x") == b"1"


def test_a_claim_ends_with_an_error(files: Files) -> None:
    with pytest.raises(RuntimeError), claim(files, "a", lease_s=60):
        raise RuntimeError
    assert not is_held(files, "a")


def test_who_looked_long_ago_does_not_become_a_second_holder(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a waiter's look and its put others took 6 and 7, and 6 was cleared away."""
    from advdistill_core.store import claims

    folder = f"{FOLDER}/a"
    files.create(f"{folder}/00000007.json", b'{"held": true, "beat": "x"}')
    looks = iter([(5, b'{"held": false, "beat": "y"}')])
    really = claims._latest
    monkeypatch.setattr(claims, "_latest", lambda *a: next(looks, None) or really(*a))
    told: list[bool] = []
    waiter = threading.Thread(
        target=lambda: claims._take(files, folder, lambda: told.append(True), 5), daemon=True
    )
    waiter.start()
    time.sleep(0.5)
    assert told == [True], "it waits for the holder of 7"
    assert files.names(folder) == ["00000007.json"]
    files.write(f"{folder}/00000007.json", b'{"held": false, "beat": "z"}')
    waiter.join(10)
    assert files.names(folder) == ["00000008.json"]
