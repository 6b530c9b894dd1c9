"""`advdistill gc`: find, and on request remove, artifacts that nothing refers to."""

import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from advdistill_core.stages import STAGES
from advdistill_core.store import Store
from advdistill_core.store.artifacts import LOCKS
from advdistill_core.store.claims import is_held
from flows import promotion
from flows.run_record import FOLDER, read_runs

PINS = "pins.txt"
_DAY_S = 86400.0


@dataclass(frozen=True)
class Garbage:
    """An artifact, or the work of one, that nothing refers to."""

    name: str
    why: str
    size_bytes: int


def find_garbage(root: str, keep_days: float | None = None, min_age_h: float = 24.0) -> list[Garbage]:
    """List what could be removed.

    What a run, a champion (also a former one) or a pin refers to stays, and so does what
    is being made now. Pins are lines `stage/fingerprint` in `ROOT/pins.txt`.

    Args:
        keep_days: runs older than this do not count as references; all count without it.
        min_age_h: younger artifacts and unfinished work stay, in hours: a run may be about
            to use them.
    """
    store = Store(root)
    kept = _referenced(store, root, keep_days)
    found = []
    for name in _folders(store):
        if name in kept:
            continue
        size_bytes, newest = _size_and_time(store, name)
        if time.time() - newest < min_age_h * 3600 or _in_use(store, name):
            continue
        stage, _, fingerprint = name.partition("/")
        whole = store.manifest(stage, fingerprint) is not None
        found.append(Garbage(name, "nothing refers to it" if whole else "unfinished", size_bytes))
    return found


def remove(root: str, garbage: list[Garbage]) -> int:
    """Remove what was found; returns the bytes freed."""
    store = Store(root)
    for item in garbage:
        store.files.remove(f"{item.name}/manifest.json")  # first: from here on it is not whole
        store.files.remove(item.name)
    return sum(item.size_bytes for item in garbage)


def _referenced(store: Store, root: str, keep_days: float | None) -> set[str]:
    since = 0.0 if keep_days is None else time.time() - keep_days * _DAY_S
    uris = [
        s.uri for run in read_runs(root, strict=True) if run.started_at >= since for s in run.stages.values()
    ]
    for line in promotion.lines(store).values():
        for champion in line.champions:
            uris += [ref.uri for ref in (champion.student, champion.selection, *champion.refs)]
    names = {"/".join(uri.rstrip("/").split("/")[-2:]) for uri in uris}
    if store.files.exists(PINS):
        names |= set(store.files.read(PINS).decode().split())
    return names


def _folders(store: Store) -> Iterator[str]:
    """Names `stage/fingerprint` of everything that stages left."""
    for stage in STAGES:
        path = store.files.path(stage)
        if store.files.fs.isdir(path):
            for entry in store.files.fs.ls(path, detail=True):
                if entry["type"] == "directory":
                    yield f"{stage}/{os.path.basename(entry['name'].rstrip('/'))}"


def _size_and_time(store: Store, name: str) -> tuple[int, float]:
    """Bytes of all files of a folder, and when the newest was written (seconds since 1970)."""
    size, newest = 0, 0.0
    for info in store.files.fs.find(store.files.path(name), detail=True).values():
        size += int(info["size"])
        written = info.get("mtime") or info.get("LastModified") or 0.0
        newest = max(newest, written.timestamp() if hasattr(written, "timestamp") else float(written))
    return size, newest


def _in_use(store: Store, name: str) -> bool:
    """Whether a living process is making the artifact.

    On a remote root an unreleased claim counts, of a dead holder too: rather keep than lose.
    """
    if not store.files.is_local:
        return is_held(store.files, name.replace("/", "-", 1))
    path: Path = store.files.local_folder(LOCKS) / f"{name.replace('/', '-', 1)}.lock"
    if not path.exists():
        return False
    with open(path, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def drop_old_runs(root: str, keep_days: float) -> int:
    """Remove the records of runs older than this; returns how many."""
    store = Store(root)
    old = [run for run in read_runs(root, strict=True) if run.started_at < time.time() - keep_days * _DAY_S]
    for run in old:
        store.files.remove(f"{FOLDER}/{run.run_id}.json")
    return len(old)
