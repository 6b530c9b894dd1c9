"""Checkpoints that are whole or not there, and finding the last good one.

A checkpoint is written under another name, listed with sizes and checksums in
`files.json`, flushed and renamed. So a kill leaves none half-written, and one that a
failing disk tore afterwards is noticed and passed over for the one before.
"""

import json
import os
import re
import shutil
import zlib
from pathlib import Path

_LISTING = "files.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")
_CHUNK_BYTES = 1 << 22


def publish(staged: Path, folder: Path) -> Path:
    """Move a finished checkpoint into place.

    Args:
        staged: the checkpoint as written, on the same file system.
        folder: where checkpoints are kept.
    """
    listing = {}
    for path in sorted(p for p in staged.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        listing[str(path.relative_to(staged))] = [path.stat().st_size, _crc32(path)]
    with open(staged / _LISTING, "w", encoding="utf-8") as out:
        json.dump(listing, out)
        out.flush()
        os.fsync(out.fileno())
    target = folder / staged.name
    if target.exists():  # of an earlier attempt, passed over because it is damaged
        shutil.rmtree(target)
    os.rename(staged, target)
    _sync_folder(folder)
    return target


def last_good(folder: Path) -> Path | None:
    """The newest checkpoint all of whose files are as they were written, or None."""
    for _, path in reversed(numbered(folder)):
        if _is_whole(path):
            return path
    return None


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints with their step, oldest first, whether whole or not."""
    found = ((_NAME.match(p.name), p) for p in folder.iterdir()) if folder.is_dir() else ()
    return sorted((int(match[1]), path) for match, path in found if match)


def keep_newest(folder: Path, count: int, best: int | None = None) -> None:
    """Remove all but the newest `count` checkpoints and that of the step `best`."""
    for step, path in numbered(folder)[:-count]:
        if step != best:
            shutil.rmtree(path)


def _is_whole(path: Path) -> bool:
    try:
        listing = json.loads((path / _LISTING).read_text("utf-8"))
        return bool(listing) and all(
            (path / name).stat().st_size == size and _crc32(path / name) == crc
            for name, (size, crc) in listing.items()
        )
    except (OSError, ValueError):
        return False


def _crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
