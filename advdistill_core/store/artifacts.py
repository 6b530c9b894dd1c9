"""Artifacts: what a stage leaves behind, whole or not at all, verified before reuse."""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from advdistill_core.errors import ArtifactError
from advdistill_core.store import tables
from advdistill_core.store.claims import claim
from advdistill_core.store.files import Files
from advdistill_core.store.locks import file_lock
from advdistill_core.store.manifest import ArtifactRef, Manifest, Outcome, Part

#: Folder of the lock files under a local root.
LOCKS = ".locks"


class Store:
    """The artifacts under one root: `ROOT/<stage>/<fingerprint>/`."""

    def __init__(self, root: str, deep_verify: bool = False) -> None:
        self.files = Files(root)
        self.deep_verify = deep_verify

    def manifest(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest of an artifact, or None if there is none that can be read."""
        try:
            return Manifest.of_file(self.files.read(f"{stage}/{fingerprint}/manifest.json"))
        except (FileNotFoundError, ValueError):
            return None

    def find(self, stage: str, fingerprint: str) -> ArtifactRef | None:
        """A whole and unaltered artifact, or None."""
        manifest = self.manifest(stage, fingerprint)
        if manifest is None or self.damage(manifest):
            return None
        return self._ref(manifest, "cached")

    def damage(self, manifest: Manifest) -> str | None:
        """What is wrong with an artifact's files, or None."""
        folder = f"{manifest.stage}/{manifest.fingerprint}"
        for part in manifest.parts:
            found = self.files.size_and_stamp(f"{folder}/{part.name}")
            if found is None:
                return f"{part.name} is missing"
            size_bytes, stamp = found
            if size_bytes != part.size_bytes:
                return f"{part.name} has {size_bytes} bytes, expected {part.size_bytes}"
            if (self.deep_verify or stamp != part.stamp) and self.files.sha256(
                f"{folder}/{part.name}"
            ) != part.sha256:
                return f"{part.name} was altered"
        return None

    def distrust(self, manifest: Manifest) -> None:
        """Let whoever asks for an artifact next compare checksums, since bytes of it were altered.

        Nothing is written where somebody makes it anew, or did since `manifest` was read.
        """
        parts = [part.model_copy(update={"stamp": "doubted"}) for part in manifest.parts]
        doubted = manifest.model_copy(update={"parts": parts})
        with contextlib.suppress(OSError):  # a store that cannot be written is not mended either
            if self.manifest(manifest.stage, manifest.fingerprint) == manifest:
                self.files.write(f"{manifest.stage}/{manifest.fingerprint}/manifest.json", doubted.to_file())

    def tidy(self, ref: ArtifactRef) -> None:
        """Remove what a producer that was killed after its manifest had no time to remove."""
        work = f"{ref.stage}/{ref.fingerprint}/work"
        if self.files.is_local and os.path.isdir(self.files.path(work)):
            self.files.remove(work)

    def open(self, ref: ArtifactRef) -> "Artifact":
        """Open an artifact for reading.

        Raises:
            ArtifactError: it is not there.
        """
        manifest = self.manifest(ref.stage, ref.fingerprint)
        if manifest is None:
            raise ArtifactError(
                f"artifact {ref.stage}/{ref.fingerprint}: got no manifest, "
                f"expected one under {self.files.uri}."
            )
        return Artifact(self, manifest)

    def lock(self, stage: str, fingerprint: str, on_wait: Any = None) -> AbstractContextManager[None]:
        """Hold the right to produce an artifact; waits for another living producer."""
        name = f"{stage}-{fingerprint}"
        if self.files.is_local:
            path = Path(self.files.path(f"{LOCKS}/{name}.lock"))  # refuses what would leave the root
            self.files.local_folder(LOCKS)
            return file_lock(path, on_wait)
        return claim(self.files, name, on_wait)

    def begin(self, stage: str, version: str, fingerprint: str, table: str | None) -> "ArtifactWriter":
        return ArtifactWriter(self, stage, version, fingerprint, table)

    def _ref(self, manifest: Manifest, outcome: Outcome) -> ArtifactRef:
        return ArtifactRef(
            stage=manifest.stage,
            fingerprint=manifest.fingerprint,
            uri=f"{self.files.uri}/{manifest.stage}/{manifest.fingerprint}",
            rows=manifest.rows,
            content_hash=manifest.content_hash(),
            outcome=outcome,
            seconds=0.0 if outcome == "cached" else manifest.seconds,
        )


class Artifact:
    """A finished artifact, to be read."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest
        self.folder = f"{manifest.stage}/{manifest.fingerprint}"

    def tables(self, prefix: str = "") -> Iterator[pa.Table]:
        """The Parquet parts whose name starts with `prefix`, one at a time, in order."""
        for part in sorted(self.manifest.parts, key=lambda p: p.name):
            if part.name.startswith(prefix) and part.name.endswith(".parquet"):
                yield tables.decode(self._read(part), f"{self.folder}/{part.name}")

    def table(self, prefix: str = "") -> pa.Table:
        """All chosen parts as one table (for tables that fit in memory)."""
        parts = list(self.tables(prefix))
        if not parts:
            raise ArtifactError(f"artifact {self.folder}: got no part named {prefix!r}..., expected one.")
        return pa.concat_tables(parts)

    def file(self, name: str) -> bytes:
        """One part's bytes.

        Raises:
            ArtifactError: there is no such part, or it was altered.
        """
        part = next((part for part in self.manifest.parts if part.name == name), None)
        if part is None:
            raise ArtifactError(f"artifact {self.folder}: got no part {name!r}, expected one.")
        return self._read(part)

    def _read(self, part: Part) -> bytes:
        """A part as its manifest describes it: size and stamp do not tell of a bit that flipped.

        Raises:
            ArtifactError: it was altered; whoever asks for the artifact next makes it anew.
        """
        try:
            data = self.store.files.read(f"{self.folder}/{part.name}")
        except FileNotFoundError:
            data = b""
        self._check(part, hashlib.sha256(data).hexdigest())
        return data

    def _check(self, part: Part, sha256: str) -> None:
        if sha256 != part.sha256:
            self.store.distrust(self.manifest)
            raise ArtifactError(
                f"artifact {self.folder}, {part.name}: got missing or altered bytes, expected those of its "
                "manifest. The same command makes it anew."
            )

    def local_path(self) -> Path:
        """The artifact as a local folder, fetched first when the root is remote.

        Raises:
            ArtifactError: a part was altered.
        """
        files = self.store.files
        if files.is_local:
            folder = Path(files.path(self.folder))
            for part in self.manifest.parts:
                found = folder / part.name
                self._check(part, _known_sha256(found) if found.is_file() else "")
            return folder
        target = files.local_folder(self.folder)
        for part in self.manifest.parts:
            copy = target / part.name
            if copy.is_file() and _sha256(copy) == part.sha256:
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            fetched = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}.tmp")
            try:
                with contextlib.suppress(FileNotFoundError):
                    files.fs.get_file(files.path(f"{self.folder}/{part.name}"), str(fetched))
                self._check(part, _sha256(fetched) if fetched.is_file() else "")
                os.replace(fetched, copy)
            finally:
                fetched.unlink(missing_ok=True)
        return target


def _known_sha256(path: Path) -> str:
    """The checksum of a file, computed once while its size and stamp stay."""
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256_of(path: Path, size_bytes: int, stamp_ns: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ArtifactWriter:
    """An artifact in the making.

    Finished shards and checkpoints live in `work/` until `commit`; they are what an
    interrupted stage continues from. Parts of an earlier, damaged version are replaced.
    """

    def __init__(self, store: Store, stage: str, version: str, fingerprint: str, table: str | None) -> None:
        self.store, self.stage, self.version, self.fingerprint = store, stage, version, fingerprint
        self.table_name = table
        self.folder = f"{stage}/{fingerprint}"
        self.resumed = self.has_work()
        self._parts: list[Part] = []
        self._tokens: dict[str, int] = {}
        self._metrics: dict[str, Any] = {}
        self._started_at, self._started = time.time(), time.monotonic()
        damaged = store.manifest(stage, fingerprint)
        if damaged:  # it tells which parts are still good
            store.files.write(f"{self.folder}/work/replaced.json", damaged.to_file())
        store.files.remove(f"{self.folder}/manifest.json")  # parts below it are about to change

    # -- work in progress ---------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether an earlier attempt left something to continue from."""
        files = self.store.files
        path = files.path(f"{self.folder}/work")
        if files.fs.isdir(path) and files.fs.ls(path):
            return True
        return not files.is_local and any(files.local_folder(f"{self.folder}/work").iterdir())

    def work_folder(self, name: str) -> Path:
        """A local folder that survives a kill, e.g. for training checkpoints.

        Under a remote root it stays on this machine: another one starts without it.
        """
        return self.store.files.local_folder(f"{self.folder}/work/{name}")

    def read_shard(self, key: str) -> pa.Table | None:
        """A shard finished earlier; None when it is absent or damaged."""
        name = f"{self.folder}/work/{key}.parquet"
        try:
            return tables.decode(self.store.files.read(name), name)
        except (FileNotFoundError, ArtifactError):
            return None

    def write_shard(self, key: str, table: pa.Table) -> None:
        """Keep a finished shard; from here on a kill does not lose it."""
        self.store.files.write(f"{self.folder}/work/{key}.parquet", tables.encode(table))

    # -- the artifact -------------------------------------------------------------------

    def write_tables(self, stream: Iterable[pa.Table], prefix: str = "part") -> None:
        """Write a table as `<prefix>-00000.parquet`, ..., whatever shards it came in.

        At least one part is written, so that an empty table keeps its schema.
        """
        schema = tables.SCHEMAS[self.table_name] if self.table_name else None
        index = -1
        for index, part in enumerate(tables.in_parts(stream)):
            if schema is not None:
                part = part.select(schema.names).cast(schema)
            self._write_part(f"{prefix}-{index:05d}.parquet", tables.encode(part), part.num_rows)
        if index < 0 and schema is not None:
            self._write_part(f"{prefix}-00000.parquet", tables.encode(schema.empty_table()), 0)

    def write_file(self, name: str, data: bytes) -> None:
        self._write_part(name, data, None)

    def put_file(self, name: str, source: Path) -> None:
        """Move a finished local file into the artifact."""
        self.store.files.put(f"{self.folder}/{name}", source)
        self._record(name, self.store.files.sha256(f"{self.folder}/{name}"), None)

    def note(
        self, *, tokens: Mapping[str, int] | None = None, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Add token counts and figures to the manifest."""
        self._tokens.update(tokens or {})
        self._metrics.update(metrics or {})

    def commit(self, inputs: Mapping[str, str], config: Mapping[str, Any]) -> ArtifactRef:
        """Write the manifest, last, and drop the work in progress."""
        outcome: Outcome = "resumed" if self.resumed else "ran"
        manifest = Manifest(
            stage=self.stage,
            stage_version=self.version,
            fingerprint=self.fingerprint,
            table=self.table_name,
            rows=sum(part.rows or 0 for part in self._parts),
            parts=self._parts,
            inputs=dict(inputs),
            config=dict(config),
            outcome=outcome,
            started_at=self._started_at,
            seconds=time.monotonic() - self._started,
            tokens=self._tokens,
            metrics=self._metrics,
        )
        files = self.store.files
        files.keep_only(self.folder, {part.name for part in self._parts} | {"manifest.json", "work"})
        files.write(f"{self.folder}/manifest.json", manifest.to_file())
        files.remove(f"{self.folder}/work")
        return self.store._ref(manifest, outcome)

    def _write_part(self, name: str, data: bytes, rows: int | None) -> None:
        self.store.files.write(f"{self.folder}/{name}", data)
        self._record(name, hashlib.sha256(data).hexdigest(), rows)

    def _record(self, name: str, sha256: str, rows: int | None) -> None:
        found = self.store.files.size_and_stamp(f"{self.folder}/{name}")
        if found is None:
            raise ArtifactError(f"{self.folder}/{name}: got nothing, expected the file just written.")
        self._parts.append(Part(name=name, rows=rows, size_bytes=found[0], sha256=sha256, stamp=found[1]))
