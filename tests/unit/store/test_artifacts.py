"""Artifacts are whole or absent; damage is found; work in progress survives."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pytest

from advdistill_core.errors import ArtifactError
from advdistill_core.store import ArtifactRef, Store
from advdistill_core.store.tables import WEIGHTS, decode, encode, from_rows, in_parts

ROOT = Path(__file__).resolve().parents[3]


def weights(count: int, start: int = 0) -> pa.Table:
    rows = [
        {
            "prompt_id": f"p{i:06d}",
            "sample_id": 0,
            "advantage": 0.5 * i,
            "weight": 1.0,
            "prompt_weight": 1.0,
            "merged_into": None,
        }
        for i in range(start, start + count)
    ]
    return from_rows(rows, WEIGHTS)


def write(store: Store, fingerprint: str = "f1", count: int = 10) -> ArtifactRef:
    out = store.begin("weigh", "1", fingerprint, "weights")
    out.write_tables([weights(count)])
    return out.commit({"responses": "h"}, {"tau": 0.5})


def test_roundtrip_and_manifest(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    ref = write(store)
    assert (ref.rows, ref.outcome) == (10, "ran")
    found = store.find("weigh", "f1")
    assert found is not None
    assert found.outcome == "cached"
    assert found.content_hash == ref.content_hash
    assert store.open(ref).table().equals(weights(10))
    manifest = store.manifest("weigh", "f1")
    assert manifest is not None
    assert manifest.config == {"tau": 0.5}
    assert manifest.inputs == {"responses": "h"}


def test_content_hash_depends_on_rows_alone(tmp_path: Path) -> None:
    """Shards of any size give the same files, hence the same hash downstream."""
    hashes = set()
    for name, sizes in (("a", [120_000]), ("b", [7, 59_993, 60_000]), ("c", [50_000, 50_000, 20_000])):
        store = Store(str(tmp_path / name))
        out = store.begin("weigh", "1", "f", "weights")
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        out.write_tables(weights(n, s) for n, s in zip(sizes, starts, strict=True))
        hashes.add(out.commit({}, {}).content_hash)
    assert len(hashes) == 1
    store = Store(str(tmp_path / "other"))
    assert write(store, count=11).content_hash not in hashes


@pytest.mark.parametrize("damage", ["delete", "truncate", "flip", "manifest", "torn manifest"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    store = Store(str(tmp_path))
    write(store)
    part = tmp_path / "weigh" / "f1" / "part-00000.parquet"
    manifest = part.with_name("manifest.json")
    data = part.read_bytes()
    if damage == "delete":
        part.unlink()
    elif damage == "truncate":
        part.write_bytes(data[:-1])
    elif damage == "flip":
        time.sleep(0.02)
        part.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    elif damage == "manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes()[:100])
    assert store.find("weigh", "f1") is None


def test_same_content_with_a_new_time_is_still_valid(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write(store)
    os.utime(tmp_path / "weigh" / "f1" / "part-00000.parquet", (1, 1))
    assert store.find("weigh", "f1") is not None


def test_silent_bit_flip_is_found_when_reading_and_by_deep_verify(tmp_path: Path) -> None:
    """A flip that leaves size and time as they were escapes the quick check only."""
    store = Store(str(tmp_path))
    ref = write(store, count=1000)
    part = tmp_path / "weigh" / "f1" / "part-00000.parquet"
    stat, data = part.stat(), bytearray(part.read_bytes())
    data[200] ^= 1
    part.write_bytes(bytes(data))
    os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Store(str(tmp_path), deep_verify=True).find("weigh", "f1") is None
    with pytest.raises(ArtifactError):
        store.open(ref).table()


def test_uncommitted_is_absent_and_resumed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    out = store.begin("weigh", "1", "f1", "weights")
    out.write_shard("shard-00000", weights(3))
    assert store.find("weigh", "f1") is None
    again = store.begin("weigh", "1", "f1", "weights")
    kept = again.read_shard("shard-00000")
    assert kept is not None
    assert kept.equals(weights(3))
    assert again.read_shard("shard-00001") is None
    again.write_tables([kept])
    assert again.commit({}, {}).outcome == "resumed"
    assert not (tmp_path / "weigh" / "f1" / "work").exists()


def test_torn_shard_is_redone(tmp_path: Path) -> None:
    out = Store(str(tmp_path)).begin("weigh", "1", "f1", "weights")
    out.write_shard("s", weights(3000))
    shard = tmp_path / "weigh" / "f1" / "work" / "s.parquet"
    data = shard.read_bytes()
    for torn in (data[: len(data) // 2], b"", data[:300] + bytes([data[300] ^ 4]) + data[301:]):
        shard.write_bytes(torn)
        assert out.read_shard("s") is None


def test_empty_table_keeps_its_schema(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    out = store.begin("weigh", "1", "f1", "weights")
    out.write_tables([])
    ref = out.commit({}, {})
    assert ref.rows == 0
    assert store.open(ref).table().schema.equals(WEIGHTS)


def test_rows_must_fit_the_schema() -> None:
    row = weights(1).to_pylist()[0]
    with pytest.raises(ArtifactError, match="weight"):
        from_rows([{**row, "weight": None}], WEIGHTS)
    with pytest.raises(ArtifactError, match="columns"):
        from_rows([{**row, "extra": 1}], WEIGHTS)


def test_parts_have_a_fixed_size() -> None:
    sizes = [t.num_rows for t in in_parts([weights(5), weights(0), weights(9)], rows_per_part=4)]
    assert sizes == [4, 4, 4, 2]


def test_parquet_bytes_are_reproducible() -> None:
    assert encode(weights(100)) == encode(weights(100))
    assert decode(encode(weights(100))).equals(weights(100))


def test_names_cannot_leave_the_root(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    for name in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(ValueError, match="inside the root"):
            store.files.write(name, b"x")


def test_write_replaces_whole_or_not_at_all(tmp_path: Path) -> None:
    """A disk that fills up leaves the old file and no temporary one."""
    store = Store(str(tmp_path))
    store.files.write("f", b"old")
    script = f"""
        import resource
        from advdistill_core.store import Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            Store({str(tmp_path)!r}).files.write("f", b"x" * 100_000)
        except OSError:
            print("refused")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "refused"
    assert store.files.read("f") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_tables_load_with_datasets_and_pandas(tmp_path: Path) -> None:
    import pandas as pd
    from datasets import load_dataset

    write(Store(str(tmp_path / "store")))
    folder = str(tmp_path / "store" / "weigh" / "f1")
    assert len(pd.read_parquet(folder + "/part-00000.parquet")) == 10
    loaded = load_dataset("parquet", data_files=folder + "/*.parquet", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == 10
