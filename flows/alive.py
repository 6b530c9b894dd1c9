"""Whether the process of a run still lives, told by a lock that ends with it.

A run that is killed cannot write that it ended; its record goes on saying `running`. So
each run holds a lock beside its record, as long as its process lives.
"""

import fcntl
import os
from pathlib import Path

from advdistill_core.store import Store


def hold(store: Store, run_id: str) -> int:
    """Hold a run's lock until this process ends; returns the descriptor."""
    descriptor = os.open(_path(store, run_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # who asks whether it is gone has it for an instant
    return descriptor


def is_gone(store: Store, run_id: str) -> bool:
    """Whether a run had a lock and its process does not hold it any more.

    Of runs of before there were such locks, or on another machine's remote root, nothing is
    known.
    """
    try:
        descriptor = os.open(_path(store, run_id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _path(store: Store, run_id: str) -> Path:
    return store.files.local_folder(".locks") / f"run-{run_id}.lock"
