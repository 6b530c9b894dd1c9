"""Responses that earlier runs under the same root got to exactly the same requests.

Nothing is kept for this: the artifacts of `generate`, finished or not, are the cache. A row
counts for a prompt, a sample number and a request hash, and is believed only from a part
whose checksum its manifest has, from a finished shard (whose pages have checksums) or from
a journal (whose lines have). What `gc` removed is generated again.

The index holds 16 bytes per response, so that it stays small beside millions of them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from advdistill_core.errors import ArtifactError
from advdistill_core.store import Manifest, Store, tables
from advdistill_core.teachers.journal import Journal
from advdistill_core.teachers.members import SAMPLE_STEP
from advdistill_core.teachers.protocol import NO_SEED

Row = dict[str, Any]
_STAGE = "generate"
_KEY_COLUMNS = ["prompt_id", "sample_id", "request_hash"]
_OPEN_FILES = 2  # decoded at once: runs list their prompts in much the same order
_ROW_BITS = np.uint64(32)  # of a place; the bits above are the file's number
_SEED_RANGE = 1 << 31  # endpoints take seeds below it


@dataclass(frozen=True)
class Wanted:
    """A response that is missing.

    Args:
        seeds: the seeds that its request may have carried.
    """

    prompt_id: str
    number: int
    request_hash: str
    seeds: frozenset[int]

    @property
    def digest(self) -> int:
        return _digest(self.prompt_id, self.number, self.request_hash)


class Reuse:
    """An index of the responses under a root.

    Args:
        identities: of the teachers; artifacts of others are not looked at.
        own: the folder of the artifact in the making. Its shards and journals are its own
            affair; parts of a damaged version of it are a source as any other.
    """

    def __init__(self, store: Store, identities: Collection[str], own: str) -> None:
        self.store = store
        #: Each source with the checksum that its manifest has; None where it guards itself.
        self._sha256: dict[str, str | None] = {}
        for folder in self._folders():
            self._sha256.update(self._sources(folder, identities, folder == own))
        self._files = list(self._sha256)
        self._open: OrderedDict[int, pa.Table | None] = OrderedDict()
        digests, places = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for number, name in enumerate(self._files):
            found = np.fromiter((_digest_of(row) for row in self._keys(name)), np.uint64)
            digests.append(found)
            places.append((np.uint64(number) << _ROW_BITS) + np.arange(len(found), dtype=np.uint64))
        all_digests = np.concatenate(digests)
        order = np.argsort(all_digests, kind="stable")
        self._digests, self._places = all_digests[order], np.concatenate(places)[order]

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, wanted: Wanted) -> Row | None:
        """The row of a missing response as the earlier run recorded it, or None."""
        digest = wanted.digest
        place = int(np.searchsorted(self._digests, np.uint64(digest)))
        while place < len(self._digests) and int(self._digests[place]) == digest:
            row = self._row(int(self._places[place]))
            if row is not None and _answers(row, wanted):
                return row
            place += 1
        return None

    def _folders(self) -> list[str]:
        files = self.store.files
        path = files.path(_STAGE)
        if not files.fs.isdir(path):
            return []
        found = [e["name"] for e in files.fs.ls(path, detail=True) if e["type"] == "directory"]
        return [f"{_STAGE}/{name.rstrip('/').rpartition('/')[2]}" for name in sorted(found)]

    def _sources(
        self, folder: str, identities: Collection[str], own: bool
    ) -> Iterator[tuple[str, str | None]]:
        """Names of an artifact's files that may hold responses, and what their bytes must sum to."""
        manifest = self._manifest(folder)
        if manifest is not None and any(i in manifest.model_dump_json() for i in identities):
            for part in manifest.parts:
                yield f"{folder}/{part.name}", part.sha256
        if not own:
            files = self.store.files
            shards = files.names(f"{folder}/work")
            yield from ((f"{folder}/work/{n}", None) for n in shards if n.endswith(".parquet"))
            journals = files.names(f"{folder}/work/responses") if files.is_local else []
            yield from ((f"{folder}/work/responses/{n}", None) for n in journals if n.endswith(".jsonl"))

    def _manifest(self, folder: str) -> Manifest | None:
        """The manifest of an artifact, or of the damaged version that is being replaced."""
        for name in ("manifest.json", "work/replaced.json"):
            try:
                return Manifest.of_file(self.store.files.read(f"{folder}/{name}"))
            except (FileNotFoundError, ValueError):
                continue
        return None

    def _keys(self, name: str) -> Iterable[Row]:
        table = self._table(name)
        return [] if table is None else table.select([*_KEY_COLUMNS]).to_pylist()

    def _row(self, place: int) -> Row | None:
        number, index = place >> int(_ROW_BITS), place & ((1 << int(_ROW_BITS)) - 1)
        if number not in self._open:
            self._open[number] = self._table(self._files[number])
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        table = self._open[number]
        if table is None or index >= table.num_rows:
            return None
        row: Row = table.slice(index, 1).to_pylist()[0]
        return row

    def _table(self, name: str) -> pa.Table | None:
        """The good responses of a file; None when it is gone, torn or of another form."""
        try:
            if name.endswith(".jsonl"):
                rows = Journal(self.store.files.local_folder(name.rpartition("/")[0]) / _base(name)).read()
                columns = tables.RESPONSES.names
                table = tables.from_rows(({c: r[c] for c in columns} for r in rows), tables.RESPONSES)
            else:
                data, sha256 = self.store.files.read(name), self._sha256[name]
                if sha256 and hashlib.sha256(data).hexdigest() != sha256:  # size and stamp hide a flip
                    return None
                table = tables.decode(data, name)
            table = table.select(tables.RESPONSES.names).cast(tables.RESPONSES)
        except (FileNotFoundError, ArtifactError, KeyError, pa.ArrowInvalid):
            return None
        reasons = table["finish_reason"].to_pylist()
        return table.filter(pa.array([reason != "error" for reason in reasons], pa.bool_()))


def _answers(row: Row, wanted: Wanted) -> bool:
    """Whether a row is what its digest says, drawn with a seed of this run."""
    key = (row["prompt_id"], row["sample_id"] % SAMPLE_STEP, row["request_hash"])
    if key != (wanted.prompt_id, wanted.number, wanted.request_hash):
        return False
    return row["seed"] == NO_SEED or row["seed"] % _SEED_RANGE in wanted.seeds


def seeds_of_a_request(seeds: Iterable[int]) -> frozenset[int]:
    """The seeds that a request may have carried; an endpoint's are shortened, and its
    samples share that of the first."""
    return frozenset(seed % _SEED_RANGE for seed in seeds)


def _digest_of(row: Row) -> int:
    return _digest(row["prompt_id"], row["sample_id"] % SAMPLE_STEP, row["request_hash"])


def _digest(prompt_id: str, number: int, request_hash: str) -> int:
    text = f"{prompt_id}\0{number}\0{request_hash}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _base(name: str) -> str:
    return name.rpartition("/")[2]
