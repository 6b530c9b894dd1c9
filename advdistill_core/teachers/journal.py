"""Responses kept one by one, so that none that was paid for is lost to a kill.

A line is a JSON object and its checksum. A kill can tear only the last line; a line that
does not fit its checksum is left out, and its response is asked for again.
"""

import hashlib
import json
from pathlib import Path
from typing import IO, Any

from advdistill_core.store.fingerprint import canonical_json


class Journal:
    """An append-only file of table rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def read(self) -> list[dict[str, Any]]:
        """The whole rows written so far; the first of those with the same key counts."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        rows: dict[tuple[str, int, str], dict[str, Any]] = {}
        for line in lines:
            checksum, _, text = line.partition(b" ")
            if text and checksum == _checksum(text):
                row = json.loads(text)
                rows.setdefault((row["prompt_id"], row["sample_id"], row["request_hash"]), row)
        return list(rows.values())

    def append(self, row: dict[str, Any]) -> None:
        """Keep a row; it survives the end of this process from here on."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed in close
        text = canonical_json(row).encode()
        # The line break first: a torn line before must not spoil this one.
        self._file.write(b"\n" + _checksum(text) + b" " + text + b"\n")

    def close(self) -> None:
        """Let go of the file; `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
