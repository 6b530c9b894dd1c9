"""The root that a command reads or writes, checked before anything is done with it."""

import os
from pathlib import Path

from advdistill_core.config import StorageConfig
from advdistill_core.errors import InputError


def absolute(root: str | None) -> str:
    """A root that means the same in every process; the default one without any."""
    root = root or StorageConfig().root
    return root if "://" in root else os.path.abspath(root)


def to_read(root: str | None) -> str:
    """The root of a command that only looks.

    Raises:
        InputError: it is no folder; a missing one is refused if it was asked for by name.
    """
    found = absolute(root)
    if "://" in found or os.path.isdir(found) or (root is None and not os.path.lexists(found)):
        return found
    got = f"{root or found}, a file" if os.path.isfile(found) else str(root or found)
    raise InputError("--root", got, "a folder that `advdistill run` made", "Check the name.")


def check_writable(root: Path, what: str = "storage.root") -> None:
    """Refuse a folder that could not be made or written, without making it.

    Args:
        what: the setting that names the folder, for messages.

    Raises:
        InputError: naming what is in the way.
    """
    above = root
    while not os.path.lexists(above):
        above = above.parent
    remedy = "Choose another --root." if what == "storage.root" else "Set ADVDISTILL_HOME."
    if not above.is_dir():
        got = str(root) if above == root else f"{root}, below the file {above}"
        raise InputError(what, got, "a folder, or a place where one can be made", remedy)
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(what, str(root), f"a place that can be written, {above} cannot", remedy)
