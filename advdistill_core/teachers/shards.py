"""The shards of a generation in the making, which several processes may work on.

A shard is the responses of one teacher to some prompts. Whoever works on it holds a claim
(`flock` on a file, so that it ends with its holder however that ends) and keeps every
response in a journal as it arrives; a finished shard is one Parquet file, written by rename.
The first finished file counts. `flock` holds between the processes of one machine and,
where the file system passes it on, between machines (NFS version 4 does on Linux).
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from advdistill_core.errors import ArtifactError
from advdistill_core.store import Store, tables
from advdistill_core.teachers.journal import Journal

_FACTS = b"advdistill"
_BEAT_EVERY_S = 2.0


@dataclass
class Facts:
    """What a shard's rows do not tell, kept in its file.

    Args:
        tokens: tokens generated for it, in all attempts.
        prompt_tokens: prompt tokens computed or charged for them.
        reused: rows taken from earlier runs, and `reused_tokens` in them.
    """

    member: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    reused: int = 0
    reused_tokens: int = 0

    def encode(self) -> dict[bytes, bytes]:
        return {_FACTS: json.dumps(self.__dict__, sort_keys=True).encode()}

    @classmethod
    def of(cls, schema: pa.Schema) -> "Facts":
        found = (schema.metadata or {}).get(_FACTS)
        return cls(**json.loads(found)) if found else cls()


class Claim:
    """The right to work on a shard, for as long as this process lives."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path, self._descriptor = path, descriptor
        self._beat_at = time.monotonic()

    @property
    def is_held(self) -> bool:
        """False for a shard taken over from a worker that lives but does not get on."""
        return self._descriptor is not None

    def beat(self) -> None:
        """Show others that there is progress."""
        if time.monotonic() - self._beat_at > _BEAT_EVERY_S and self._descriptor is not None:
            self._beat_at = time.monotonic()
            os.utime(self._descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass
class Shards:
    """The shards under an artifact's `work` folder.

    Args:
        folder: the artifact's, relative to the store's root.
        stalled_after_s: a held claim without progress for this long is no obstacle.
    """

    store: Store
    folder: str
    stalled_after_s: float
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _me: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def names(self) -> set[str]:
        """Keys of the finished shards."""
        found = self.store.files.names(f"{self.folder}/work")
        return {name.removesuffix(".parquet") for name in found if name.endswith(".parquet")}

    def read(self, key: str) -> pa.Table | None:
        """A finished shard; None when it is absent or torn."""
        name = f"{self.folder}/work/{key}.parquet"
        try:
            return tables.decode(self.store.files.read(name), name)
        except (FileNotFoundError, ArtifactError):
            return None

    def exists(self, key: str) -> bool:
        return self.store.files.exists(f"{self.folder}/work/{key}.parquet")

    def write(self, key: str, rows: Iterable[dict[str, Any]], facts: Facts) -> None:
        """Keep a finished shard and drop the journals that it was made from."""
        table = tables.from_rows(rows, tables.RESPONSES).replace_schema_metadata(facts.encode())
        self.store.files.write(f"{self.folder}/work/{key}.parquet", tables.encode(table))
        for path in self._journals(key):
            path.unlink(missing_ok=True)

    def claim(self, key: str) -> Claim | None:
        """The right to work on a shard; None while somebody else holds it and gets on."""
        path = self.store.files.local_folder(f"{self.folder}/work/claims") / f"{key}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            beaten = os.fstat(descriptor).st_mtime_ns
            os.close(descriptor)
            return Claim(path, None) if self._is_stalled(key, beaten) else None
        os.utime(descriptor)
        return Claim(path, descriptor)

    def journal(self, key: str) -> Journal:
        """A journal of this process for a shard."""
        folder = self.store.files.local_folder(f"{self.folder}/work/responses")
        return Journal(folder / f"{key}.{self._me}.jsonl")

    def journaled(self, key: str) -> list[dict[str, Any]]:
        """The rows that anybody kept of an unfinished shard."""
        return [row for path in self._journals(key) for row in Journal(path).read()]

    def all_journaled(self) -> Iterator[dict[str, Any]]:
        """The rows of all journals."""
        for path in self._journals(""):
            yield from Journal(path).read()

    def facts(self, key: str) -> Facts:
        """The facts of a finished shard; none of one that is gone or torn."""
        table = self.read(key)
        return Facts() if table is None else Facts.of(table.schema)

    def _journals(self, key: str) -> list[Path]:
        folder = self.store.files.local_folder(f"{self.folder}/work/responses")
        return sorted(folder / name for name in os.listdir(folder) if name.startswith(key))

    def _is_stalled(self, key: str, beaten: int) -> bool:
        """Whether this process has watched a claim without a beat for too long.

        Only its own clock is read: those of two machines need not agree.
        """
        now = time.monotonic()
        seen, since = self._seen.get(key, (0, now))
        if seen != beaten:
            self._seen[key] = seen, since = beaten, now
        return now - since > self.stalled_after_s
