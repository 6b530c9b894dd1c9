"""`advdistill gc`: find, and on request remove, artifacts that nothing refers to."""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from advdistill_core.stages import STAGES
from advdistill_core.store import Store
from advdistill_core.store.artifacts import LOCKS
from advdistill_core.store.claims import is_held
from flows import promotion
from flows.run_record import FOLDER, RunRecord, read_runs

PINS = "pins.txt"
#: Where Prefect keeps its records under a local root.
RECORDS = ".records"
_DAY_S = 86400.0


@dataclass(frozen=True)
class Garbage:
    """An artifact, or the work of one, that nothing refers to."""

    name: str
    why: str
    size_bytes: int


@dataclass
class Kept:
    """Artifacts that stay for one reason."""

    artifacts: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Survey:
    """What could be removed, and what stays.

    Args:
        runs: whose records could be removed, and with them what `status` and `report` know.
        kept: by reason: `run`, `champion`, `pin`, `in use` (somebody is making it), `young`.
    """

    garbage: list[Garbage]
    runs: list[RunRecord]
    kept: dict[str, Kept]


def survey(root: str, keep_days: float | None = None, min_age_h: float = 24.0) -> Survey:
    """Find out what could be removed, and why the rest stays.

    What a run, a champion (also a former one) or a pin refers to stays, and so does what
    is being made now. Pins are lines `stage/fingerprint` in `ROOT/pins.txt`.

    Args:
        keep_days: runs older than this do not count as references, unless they are under way; all
            count without it.
        min_age_h: younger artifacts and unfinished work stay, in hours: a run may be about
            to use them.
    """
    store = Store(root)
    old, runs = _parted(store, root, keep_days)
    referenced = _referenced(store, runs)
    found = Survey([], old, {reason: Kept() for reason in (*referenced, "in use", "young")})
    for name in _folders(store):
        size_bytes, newest = _size_and_time(store, name)
        reason = next((reason for reason, names in referenced.items() if name in names), None)
        if reason is None and _in_use(store, name):
            reason = "in use"
        elif reason is None and time.time() - newest < min_age_h * 3600:
            reason = "young"
        if reason is not None:
            found.kept[reason].artifacts += 1
            found.kept[reason].size_bytes += size_bytes
            continue
        stage, _, fingerprint = name.partition("/")
        whole = store.manifest(stage, fingerprint) is not None
        found.garbage.append(Garbage(name, "nothing refers to it" if whole else "unfinished", size_bytes))
    return found


def find_garbage(root: str, keep_days: float | None = None, min_age_h: float = 24.0) -> list[Garbage]:
    """The artifacts that could be removed; see `survey`."""
    return survey(root, keep_days, min_age_h).garbage


def remove(root: str, garbage: list[Garbage]) -> int:
    """Remove what was found; returns the bytes freed.

    Logs and Prefect's records of it go, too. Its lock file, which is empty, stays: somebody may
    have opened it and wait for the lock, and who comes next would hold another one.
    """
    store = Store(root)
    records = store.files.names(RECORDS)
    for item in garbage:
        store.files.remove(f"{item.name}/manifest.json")  # first: from here on it is not whole
        store.files.remove(item.name)
        store.files.remove(f"logs/{item.name}")
        of_it = item.name.replace("/", "-", 1) + "-"  # a hash of the root follows
        for record in records:
            if record.startswith(of_it):
                store.files.remove(f"{RECORDS}/{record}")
    return sum(item.size_bytes for item in garbage)


def drop_runs(root: str, runs: Sequence[RunRecord]) -> None:
    """Remove the records of runs; `status` and `report` know them no more."""
    files = Store(root).files
    for run in runs:
        files.remove(f"{FOLDER}/{run.run_id}.json")


def _parted(store: Store, root: str, keep_days: float | None) -> tuple[list[RunRecord], list[RunRecord]]:
    """The runs that are to be let go of, and the others."""
    runs = read_runs(root, strict=True)
    if keep_days is None:
        return [], runs
    since = time.time() - keep_days * _DAY_S
    old = [
        run
        for run in runs
        if run.started_at < since and run.state != "running"  # rather keep than lose
    ]
    return old, [run for run in runs if run not in old]


def _referenced(store: Store, runs: Sequence[RunRecord]) -> dict[str, set[str]]:
    """Names `stage/fingerprint` by what refers to them."""
    of_runs = {s.uri for run in runs for s in run.stages.values()}
    of_champions: set[str] = set()
    for line in promotion.lines(store).values():
        for champion in line.champions:
            of_champions |= {ref.uri for ref in (champion.student, champion.selection, *champion.refs)}
    pins = set(store.files.read(PINS).decode().split()) if store.files.exists(PINS) else set()
    return {"run": _names(of_runs), "champion": _names(of_champions), "pin": pins}


def _names(uris: Iterable[str]) -> set[str]:
    return {"/".join(uri.rstrip("/").split("/")[-2:]) for uri in uris}


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
