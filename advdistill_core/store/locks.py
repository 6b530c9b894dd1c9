"""One producer per artifact: a lock that dies with its holder.

`flock` belongs to the process that took it, so a killed run leaves nothing to clean up.
It holds on one host; roots shared by several hosts need a shared file system that
supports it.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.2


@contextmanager
def file_lock(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for a living holder.

    Args:
        path: the lock file; made when absent and left in place, since removing a lock
            file lets two processes hold two different ones.
        on_wait: called once if somebody else holds the lock.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        waited = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited and on_wait:
                    on_wait()
                waited = True
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)
