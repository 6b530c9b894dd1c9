"""What the store does when the disk, the network or a bit fails it."""

import errno
import json
import os
import ssl
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ArtifactError, InputError, MachineError, machine_error
from advdistill_core.stages import WEIGH, run_stage
from advdistill_core.store import ArtifactRef, Store
from advdistill_core.store import patient as patience
from advdistill_core.store.claims import FOLDER, claim
from advdistill_core.store.files import Files
from advdistill_core.store.patient import Patient


def made(store: Store, data: bytes = b"some weights") -> ArtifactRef:
    out = store.begin("train", "1", "f" * 32, None)
    out.write_file("model.safetensors", data)
    return out.commit({}, {})


@pytest.mark.parametrize("read", ["file", "local_path"])
def test_a_flip_with_size_and_stamp_kept_is_noticed_when_read(tmp_path: Path, read: str) -> None:
    store = Store(str(tmp_path))
    ref = made(store)
    part = tmp_path / "train" / ("f" * 32) / "model.safetensors"
    stat = part.stat()
    part.write_bytes(b"somE weights")
    os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.find("train", "f" * 32), "nobody has looked yet"
    artifact = store.open(ref)
    with pytest.raises(ArtifactError, match="altered bytes"):
        artifact.file("model.safetensors") if read == "file" else artifact.local_path()
    assert store.find("train", "f" * 32) is None, "from here on it is known to be damaged"
    part.write_bytes(b"some weights")
    assert store.find("train", "f" * 32), "its content alone counts"


def test_a_manifest_with_one_digit_changed_is_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    out = store.begin("train", "1", "f" * 32, None)
    out.note(metrics={"accuracy": 0.25})
    out.commit({}, {})
    path = tmp_path / "train" / ("f" * 32) / "manifest.json"
    text = path.read_text()
    assert store.find("train", "f" * 32)
    path.write_text(text.replace("0.25", "0.75"))
    assert store.find("train", "f" * 32) is None
    unsealed = json.loads(text) | {"seal": ""}
    path.write_text(json.dumps(unsealed))
    assert store.find("train", "f" * 32), "one without a seal, of an earlier version, is believed"


def test_nothing_is_written_in_the_place_of_a_root_that_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    files = Files(str(root))
    files.write("a/b", b"1")
    root.rename(tmp_path / "away")
    with pytest.raises(OSError, match="root is gone") as caught:
        files.write("a/c", b"2")
    assert caught.value.errno == errno.ESTALE
    assert not root.exists()
    root.mkdir()  # as the folder that a disk was mounted on
    with pytest.raises(OSError, match="root is gone"):
        files.local_folder("a")
    with pytest.raises(OSError, match="root is gone"):
        files.check_root()
    root.rmdir()
    (tmp_path / "away").rename(root)
    files.write("a/c", b"2")
    assert files.names("a") == ["b", "c"]


@pytest.mark.parametrize("goes", [True, False])
@pytest.mark.parametrize(
    "told",
    [OSError("Repo id must be in the form 'repo_name'"), InputError("model", "a/b", "a folder that exists")],
)
def test_a_model_that_went_with_the_root_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes: bool, told: Exception
) -> None:
    """A library says that no hub knows such a name, our own check that there is no such folder."""
    root = tmp_path / "root"

    def run(*_: Any) -> None:
        if goes:
            root.rename(tmp_path / "away")
        raise told

    monkeypatch.setattr("advdistill_core.weighting.stage.run", run)
    if goes:
        with pytest.raises(MachineError, match=r"the root is gone.* Bring it back;"):
            run_stage(WEIGH, DistillConfig(), {}, Store(str(root)))
    else:
        with pytest.raises(type(told), match=r"Repo id must|a folder that exists"):
            run_stage(WEIGH, DistillConfig(), {}, Store(str(root)))


def test_a_stage_writes_nothing_where_its_inputs_are_not(tmp_path: Path) -> None:
    """A store of its own, as in a stage's process, which finds the mount point of a lost disk."""
    root = tmp_path / "root"
    ref = made(Store(str(root)))
    root.rename(tmp_path / "away")
    root.mkdir()
    config = DistillConfig.model_validate({"storage": {"root": str(root)}})
    with pytest.raises(ArtifactError, match="got no manifest"):
        run_stage(WEIGH, config, {"responses": ref, "rewards": ref}, Store(str(root)))
    assert not any(root.iterdir())


def test_what_a_kill_left_half_written_goes_with_the_next_commit(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    out = store.begin("train", "1", "f" * 32, None)
    folder = tmp_path / "train" / ("f" * 32)
    out.write_file("model.safetensors", b"w")
    (folder / ".config.json.abc.tmp").write_bytes(b"half")
    ref = out.commit({}, {})
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "model.safetensors"]
    (folder / "work").mkdir()  # killed between the manifest and its removal
    store.tidy(ref)
    assert not (folder / "work").exists()


class Shaky:
    """A file system that fails some times."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = [*errors], 0

    def read(self, name: str) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return f"content of {name}"


class Strange(Exception):
    """As the packages behind file systems have them."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.01)


def test_silence_is_waited_out(quick: None) -> None:
    fs = Shaky(ConnectionRefusedError(), Strange("no route"), TimeoutError())
    assert Patient(fs, "s3://b").read("a") == "content of a"
    assert fs.calls == 4


def test_a_refusal_and_a_mistake_of_ours_are_not(quick: None) -> None:
    for error in (FileNotFoundError("a"), PermissionError("a"), TypeError("a")):
        fs = Shaky(error)
        with pytest.raises(type(error)):
            Patient(fs, "s3://b").read("a")
        assert fs.calls == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_a_full_disk_of_ours_is_not_waited_for(quick: None, number: int) -> None:
    fs = Shaky(OSError(number, os.strerror(number), "/tmp/model.safetensors"))
    with pytest.raises(OSError, match="safetensors") as caught:
        Patient(fs, "s3://b").read("a")
    assert (fs.calls, caught.value.errno) == (1, number)


def test_patience_ends(quick: None) -> None:
    fs = Patient(Shaky(*[Strange("no route")] * 1000), "s3://b")
    fs.patience_s = 0.1
    with pytest.raises(OSError, match=r"no answer for 0 s .Strange: no route") as caught:
        fs.read("a")
    told = machine_error("stage load", caught.value)
    assert told is not None
    assert "Bring it back; what was finished is kept, the same command continues." in str(told)


@pytest.fixture
def slow_store(monkeypatch: pytest.MonkeyPatch) -> tuple[Files, list[float]]:
    """A store whose listing can be made to take its time."""
    files, delay = Files(f"memory://{uuid.uuid4().hex}"), [0.0]
    names = Files.names

    def slowly(self: Files, folder: str) -> list[str]:
        time.sleep(delay[0])
        return names(self, folder)

    monkeypatch.setattr(Files, "names", slowly)
    return files, delay


def test_an_outage_does_not_count_against_the_holder(slow_store: Any) -> None:
    """The waiter's look takes longer than a lease: it knows nothing of the holder then."""
    files, delay = slow_store
    files.create(f"{FOLDER}/a/00000001.json", b'{"held": true, "beat": "x"}')
    taken = threading.Event()

    def wait() -> None:
        with claim(files, "a", lease_s=0.3):
            taken.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    time.sleep(0.2)
    delay[0] = 0.5  # one look from here on takes longer than the lease
    assert not taken.wait(3.0)
    delay[0] = 0.0
    assert taken.wait(10.0), "the holder is dead indeed, and the store answers"
    waiter.join(5)


def test_a_dead_claim_lapses_on_a_store_that_is_always_slow(slow_store: Any) -> None:
    """Every look takes longer than the lease, so none of them counts, but they end."""
    files, delay = slow_store
    files.create(f"{FOLDER}/a/00000001.json", b'{"held": true, "beat": "x"}')
    delay[0], began = 0.06, time.monotonic()
    with claim(files, "a", lease_s=0.05):
        assert time.monotonic() - began > 20 * 0.05


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "left on device: '/x'. Free some space;"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "Make it writable;"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x\n/y"), "Bring it back;"),
        (PermissionError("Access Denied\nRequest id 1"), "Access Denied. Make it writable;"),
        (MemoryError(), "out of memory (MemoryError). Free some memory, or lower the batch sizes;"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory\n..."), "out of memory (DefaultCPU"),
        (ImportError("x.so: failed to map segment from shared object"), "out of memory (x.so"),
    ],
)  # fmt: skip
def test_what_the_machine_did_is_one_line_with_a_remedy(error: Exception, words: str) -> None:
    told = machine_error("stage load", error)
    assert told is not None
    assert str(told).startswith("stage load: ")
    assert words in str(told)
    assert "\n" not in str(told)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a mistake of ours"),
        OSError("m is no model.\nMake sure ..."),
        OSError(errno.EBADF, "x"),
        ssl.SSLCertVerificationError(1, "certificate verify failed"),  # whose 1 is not that of the system
    ],
)
def test_what_is_no_failure_of_the_machine_keeps_its_traceback(error: Exception) -> None:
    assert machine_error("stage load", error) is None


@pytest.mark.parametrize("meanwhile", ["made anew", "being made anew"])
def test_doubt_of_an_old_artifact_does_not_touch_a_new_one(tmp_path: Path, meanwhile: str) -> None:
    store = Store(str(tmp_path))
    old = store.open(made(store))
    path = tmp_path / "train" / ("f" * 32) / "manifest.json"
    if meanwhile == "made anew":
        made(store, b"other weights")
    else:
        store.begin("train", "1", "f" * 32, None).write_file("model.safetensors", b"other weights")
    there = path.read_bytes() if path.exists() else None
    with pytest.raises(ArtifactError, match="altered bytes"):
        old.file("model.safetensors")
    assert (path.read_bytes() if path.exists() else None) == there
