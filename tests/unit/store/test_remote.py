"""A root that is no local folder: fsspec's memory file system stands for an object store."""

import uuid
from pathlib import Path

import pytest

from advdistill_core.errors import ArtifactError
from advdistill_core.store import ArtifactRef, Store, patient


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Store(f"memory://{uuid.uuid4().hex}")


def model(store: Store, weights: bytes) -> ArtifactRef:
    out = store.begin("train", "1", "f", None)
    out.write_file("model.safetensors", weights)
    return out.commit({}, {})


def test_roundtrip(store: Store) -> None:
    ref = model(store, b"abc")
    assert ref.uri.startswith("memory://")
    found = store.find("train", "f")
    assert found is not None
    assert found.content_hash == ref.content_hash
    store.files.remove("train/f/model.safetensors")
    assert store.find("train", "f") is None


def test_a_fetched_model_follows_its_artifact(store: Store) -> None:
    """Made again with weights of the same size, the local copy is fetched again."""
    assert (store.open(model(store, b"old")).local_path() / "model.safetensors").read_bytes() == b"old"
    assert (store.open(model(store, b"new")).local_path() / "model.safetensors").read_bytes() == b"new"


@pytest.mark.parametrize("damaged", [b"abC", None], ids=["flipped", "gone"])
def test_a_model_altered_in_the_store_is_not_handed_out(store: Store, damaged: bytes | None) -> None:
    """A flip keeps the size, and memory:// has no stamps: only the checksum tells."""
    artifact = store.open(model(store, b"abc"))
    if damaged is None:
        store.files.remove("train/f/model.safetensors")
    else:
        store.files.write("train/f/model.safetensors", damaged)
    with pytest.raises(ArtifactError, match="altered bytes"):
        artifact.local_path()
    assert not any(store.files.local_folder("train/f").iterdir()), "nothing of it stays here"
    assert store.find("train", "f") is None, "from here on it is known to be damaged"


def test_removing_an_artifact_removes_its_local_work(store: Store) -> None:
    out = store.begin("train", "1", "f", None)
    checkpoint = out.work_folder("checkpoints") / "checkpoint-1"
    checkpoint.mkdir()
    store.files.remove("train/f")
    assert not checkpoint.exists()


def test_commit_leaves_no_checkpoints_behind(store: Store) -> None:
    out = store.begin("train", "1", "f", None)
    folder = out.work_folder("checkpoints")
    (folder / "x").write_text("x")
    out.write_file("model.safetensors", b"abc")
    out.commit({}, {})
    assert not folder.exists()


def test_a_removal_whose_answer_was_lost_is_no_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for again, and finds nothing."""
    monkeypatch.setattr(patient, "_FIRST_WAIT_S", 0.01)
    memory = store.files.fs._fs
    removed, lost = memory.rm, [ConnectionResetError("no answer")]

    def rm(path: str, recursive: bool) -> None:
        removed(path, recursive=recursive)
        if lost:
            raise lost.pop()

    store.files.write("train/f/work/a", b"1")
    monkeypatch.setattr(memory, "rm", rm)
    store.files.remove("train/f/work")
    assert not lost
    assert not store.files.exists("train/f/work")


def test_the_local_folder_is_private(store: Store, tmp_path: Path) -> None:
    store.files.local_folder("train/f")
    (base,) = tmp_path.glob("advdistill-*")
    assert base.stat().st_mode & 0o077 == 0
