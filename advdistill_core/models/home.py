"""The user's cache: models made once, and file hashes remembered."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from advdistill_core.home import home
from advdistill_core.store.locks import file_lock


def build_once(name: str, build: Callable[[Path], None]) -> Path:
    """A model folder of the cache, made when absent.

    Args:
        name: name of the folder; it must change whenever `build` would make another one.
        build: fills an empty folder. It works under a temporary name that is renamed when
            it returns, so the folder exists if and only if it is whole; of several
            processes one builds and the others wait.
    """
    models = home() / "models"
    target = models / name
    if target.is_dir():
        return target
    with file_lock(models / f".{name}.lock"):
        if target.is_dir():
            return target
        for leftover in models.glob(f".{name}.*.tmp"):  # of a builder that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = models / f".{name}.{uuid.uuid4().hex}.tmp"
        temporary.mkdir()
        try:
            build(temporary)
            for file in temporary.iterdir():
                _flush(file)
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def sha256(path: Path) -> str:
    """The hash of a file, remembered in the cache until its size or times change."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    key = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    memo = home() / "hashes" / f"{key}.json"
    try:
        record = json.loads(memo.read_text())
        if record["stamp"] == stamp:
            return str(record["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent or torn: hash again
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember(memo, {"stamp": stamp, "sha256": digest})
    return digest


def _remember(memo: Path, record: dict[str, object]) -> None:
    """Keep a hash; a cache that cannot be written only costs time."""
    temporary = memo.with_name(f".{memo.name}.{uuid.uuid4().hex}.tmp")
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record))
        os.replace(temporary, memo)
    except OSError:
        pass


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def no_bars() -> Iterator[None]:
    """Silence the progress bars of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
