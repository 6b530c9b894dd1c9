"""Files under one root, local or on an object store, written whole or not at all."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from advdistill_core.errors import ArtifactError, InputError
from advdistill_core.store.patient import Patient

_CHUNK_BYTES = 1 << 20


class Files:
    """Paths relative to a root folder or fsspec URI.

    Local writes go to a temporary name, are flushed to the disk and renamed. Object
    stores show an object only when its upload is complete, which gives the same promise.
    """

    def __init__(self, root: str) -> None:
        fs, path = _file_system(root)
        self.is_local = isinstance(fs, LocalFileSystem)
        self.fs: Any = fs if self.is_local else Patient(fs, root)
        self.root = os.path.abspath(path) if self.is_local else path.rstrip("/")
        self.uri = self.root if self.is_local else self.fs.unstrip_protocol(self.root)
        self._place = self._found()

    def path(self, name: str) -> str:
        """The full path of a name; names cannot leave the root."""
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"name {name!r}: expected a path inside the root.")
        return f"{self.root}/{name}"

    def _found(self) -> tuple[int, int] | None:
        """Device and inode of a local root; None where it is not there."""
        if not self.is_local:
            return None
        try:
            stat = os.stat(self.root)
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def check_root(self) -> None:
        """Raise OSError where a local root is gone, or another folder has its place."""
        if self._place is not None and self._found() != self._place:
            raise OSError(errno.ESTALE, "the root is gone, or not the folder that it was", self.root)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder below the local root, and the root itself only if it never was there.

        Raises:
            OSError: the root was there and is gone, or another folder has its place (a disk that
                was unmounted): what would be written there would be lost.
        """
        if self._place is None:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            self._place = self._found()
        self.check_root()
        path = Path(self.root)
        for part in folder.relative_to(path).parts:  # one by one: the root may go at this moment
            path = path / part
            with contextlib.suppress(FileExistsError):
                path.mkdir()

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.path(name)))

    def open(self, name: str) -> IO[bytes]:
        return self.fs.open(self.path(name), "rb")  # type: ignore[no-any-return]

    def read(self, name: str) -> bytes:
        if not self.is_local:
            return bytes(self.fs.cat_file(self.path(name)))
        with self.open(name) as file:
            return file.read()

    def create(self, name: str, data: bytes) -> bool:
        """Write under a name that is not taken; False if it is. Remote roots only.

        After an outage it may be taken by this very call, whose first try arrived unnoticed.
        """
        try:
            self.fs.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write all of `data` under `name`, replacing what was there, or nothing."""
        if not self.is_local:
            self.fs.pipe(self.path(name), data)
            return
        target = Path(self.path(name))
        self._make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            _drop(temporary)

    def put(self, name: str, source: Path) -> None:
        """Move a finished local file under `name`."""
        if not self.is_local:
            self.fs.put_file(str(source), self.path(name))
            source.unlink()
            return
        target = Path(self.path(name))
        self._make_folder(target.parent)
        with open(source, "rb") as file:
            os.fsync(file.fileno())
        if source.stat().st_dev == target.parent.stat().st_dev:
            os.replace(source, target)
            return
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        finally:
            _drop(temporary)
        source.unlink()

    def size_and_stamp(self, name: str) -> tuple[int, str] | None:
        """Size in bytes and a value that changes when the file is written; None if absent."""
        if self.is_local:
            try:
                stat = os.stat(self.path(name))
            except FileNotFoundError:
                return None
            return stat.st_size, str(stat.st_mtime_ns)
        try:
            info: dict[str, Any] = self.fs.info(self.path(name))
        except FileNotFoundError:
            return None
        return int(info["size"]), str(info.get("ETag") or info.get("LastModified") or info.get("mtime") or "")

    def sha256(self, name: str) -> str:
        return self._digest(name) if self.is_local else self.fs.ask(lambda: self._digest(name))  # type: ignore[no-any-return]

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        with self.open(name) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted, without temporary ones."""
        path = self.path(folder)
        if not self.fs.isdir(path):
            return []
        self.fs.invalidate_cache(path)
        found = (
            os.path.basename(entry["name"])
            for entry in self.fs.ls(path, detail=True)
            if entry["type"] == "file"
        )
        return sorted(name for name in found if not name.endswith(".tmp"))

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all it holds; absent is fine."""
        path = self.path(name)
        if self.is_local:
            _remove_local(Path(path))
            return
        _remove_local(self._scratch() / name)
        if self.fs.exists(path):
            with contextlib.suppress(FileNotFoundError):  # a first try arrived, its answer did not
                self.fs.rm(path, recursive=True)

    def keep_only(self, folder: str, names: Collection[str]) -> None:
        """Remove what else lies in a local folder: files that a kill left half-written."""
        path = Path(self.path(folder))
        if not self.is_local or not path.is_dir():
            return
        kept = {name.split("/")[0] for name in names}
        for found in path.iterdir():
            if found.name not in kept:
                _remove_local(found)

    def local_folder(self, name: str) -> Path:
        """A folder that libraries can write to: under the root when that is local."""
        if self.is_local:
            folder = Path(self.path(name))
            self._make_folder(folder)
            return folder
        folder = self._scratch() / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _scratch(self) -> Path:
        """This user's local folder for a remote root: checkpoints, fetched models, locks.

        Raises:
            ArtifactError: somebody else owns the place.
        """
        base = Path(tempfile.gettempdir()) / f"advdistill-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid() or base.is_symlink():
            raise ArtifactError(f"{base}: got a folder of somebody else, expected one's own. Set TMPDIR.")
        return base / hashlib.sha256(self.uri.encode()).hexdigest()[:32]


def _file_system(root: str) -> tuple[Any, str]:
    """The file system of a root, and the path on it.

    Listings are not remembered: other machines write there too.

    Raises:
        InputError: no such file system, or its package is missing.
    """
    options = {"use_listings_cache": False} if "://" in root else {}
    try:
        fs, path = fsspec.core.url_to_fs(root, **options)
    except (ImportError, ValueError) as error:
        raise InputError(
            "storage.root",
            root,
            "a folder, or the URI of a file system that is installed",
            f'{error}. For s3://: pip install "advdistill[s3]".',
        ) from error
    return fs, path


def _drop(temporary: Path) -> None:
    """Remove a file if it is there; where that fails, so did the writing, which tells more."""
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _remove_local(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
