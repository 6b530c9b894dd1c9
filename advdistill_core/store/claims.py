"""One producer per artifact where `flock` does not reach: claims kept as objects.

A claim is the object with the highest number in the artifact's claim folder. The next
number is taken by a put that fails where the object exists (`If-None-Match: *` on S3), once
the claim before it is released, or was not renewed for a whole lease as the waiter itself
saw it: the clocks of two machines are never compared. The highest number is never removed,
so a waiter that looked long ago cannot take a number a second time.

A holder that was suspended for longer than the lease loses its claim without a word. If it
wakes up and writes beside its successor, the checksums of the manifest tell when the
artifact is reused, and the stage runs again.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from advdistill_core.store.files import Files

FOLDER = ".claims"
#: How long a claim outlives a holder that was killed, in seconds.
LEASE_S = 60.0
_RENEWALS_PER_LEASE = 6
#: Leases without a renewal after which a claim lapses even if the store was slow all the time:
#: far more than the patience with a store, after which a living holder gives up by itself.
_MOST_LEASES = 20
_POLL_S = 0.5


@contextmanager
def claim(
    files: Files, name: str, on_wait: Callable[[], None] | None = None, lease_s: float = LEASE_S
) -> Iterator[None]:
    """Hold the right to produce something, waiting for another living holder.

    Args:
        files: the root; its store must have conditional puts.
        name: what is to be produced; one path component.
        on_wait: called once if somebody else holds the claim.
        lease_s: seconds after which a claim that is not renewed may be taken over.
    """
    folder = f"{FOLDER}/{name}"
    number = _take(files, folder, on_wait, lease_s)
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(files, _path(folder, number), stop, lease_s), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        files.write(_path(folder, number), _body(held=False))


def is_held(files: Files, name: str) -> bool:
    """Whether the latest claim was not released; its holder may be dead."""
    folder = f"{FOLDER}/{name}"
    number, body = _latest(files, folder)
    return number > 0 and _holds(body)


def _take(files: Files, folder: str, on_wait: Callable[[], None] | None, lease_s: float) -> int:
    seen, since, waited = b"", time.monotonic(), False
    changed = since  # `since` starts again after a slow look, this does not
    while True:
        asked = time.monotonic()
        number, body = _latest(files, folder)
        # A store that did not answer has told nothing of the holder, who could not renew either.
        now = time.monotonic()
        if body != seen:
            seen, since, changed = body, now, now
        elif now - asked > lease_s / _RENEWALS_PER_LEASE:
            since = now
        if not _holds(body) or now - since > lease_s or now - changed > _MOST_LEASES * lease_s:
            if files.create(_path(folder, number + 1), _body(held=True)):
                if _latest(files, folder)[0] == number + 1:
                    _forget(files, folder, number + 1)
                    return number + 1
                files.remove(_path(folder, number + 1))  # others went on while we looked
            continue
        if not waited and on_wait:
            on_wait()
        waited = True
        time.sleep(_POLL_S)


def _renew(files: Files, path: str, stop: threading.Event, lease_s: float) -> None:
    while not stop.wait(lease_s / _RENEWALS_PER_LEASE):
        try:
            files.write(path, _body(held=True))
        except Exception:  # noqa: BLE001 - stores have errors of their own; the next one may pass
            continue


def _latest(files: Files, folder: str) -> tuple[int, bytes]:
    """The highest number and what stands there; 0 where nobody ever claimed."""
    numbers = [int(name.partition(".")[0]) for name in files.names(folder)]
    if not numbers:
        return 0, b""
    try:
        return max(numbers), files.read(_path(folder, max(numbers)))
    except FileNotFoundError:  # a higher one was made meanwhile
        return _latest(files, folder)


def _forget(files: Files, folder: str, below: int) -> None:
    for name in files.names(folder):
        if int(name.partition(".")[0]) < below:
            files.remove(f"{folder}/{name}")


def _holds(body: bytes) -> bool:
    return bool(body) and bool(json.loads(body)["held"])


def _body(held: bool) -> bytes:
    """Different each time, so that a waiter sees a renewal."""
    return json.dumps({"held": held, "beat": uuid.uuid4().hex}).encode()


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.json"
