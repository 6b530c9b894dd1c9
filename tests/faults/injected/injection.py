"""Brings a fault into a process in the middle of a stage.

Which one is told by a mapping: the `root`, the `stage`, the `fault`, and `at`, the number of the
file operation under the root before which it happens. The operations are counted from the moment
the stage's lock is opened, by an audit hook, so that nothing in the project is replaced. The file
`log` then names the file that the operation was about. Without a fault they are only counted.
"""

import ctypes
import os
import resource
import signal
import time
from typing import Any

_MS_RDONLY, _MS_REMOUNT, _MS_BIND = 1, 32, 4096
_WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.listdir", "os.scandir"}


class Injection:
    """Counts a stage's file operations and lets the fault happen at the chosen one."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.count, self.armed, self.done, self.busy = 0, False, False, False

    @property
    def root(self) -> str:
        return str(self.told["root"])

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.done or self.busy or event not in _WATCHED or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, str) or not path.startswith(self.root):
            return
        self.busy = True
        try:
            self._see(path)
        finally:
            self.busy = False

    def _see(self, path: str) -> None:
        name = os.path.basename(path)
        if "/.locks/" in path:
            self.armed = name.startswith(self.told["stage"] + "-")
        if not self.armed:
            return
        self.count += 1
        if self.count == self.told.get("at"):
            self.done = True
            with open(self.told["log"], "w") as log:
                log.write(path.removeprefix(self.root))
            getattr(self, self.told["fault"])()

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def fill(self) -> None:
        """Fill the file system of the root to the last byte."""
        with open(self.told["filler"], "wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def read_only(self) -> None:
        """Lay a read-only view of the root over it, as a kernel that saw a bad disk does."""
        libc, root = ctypes.CDLL(None, use_errno=True), self.root.encode()
        for flags in (_MS_BIND, _MS_BIND | _MS_REMOUNT | _MS_RDONLY):
            if libc.mount(root, root, None, flags, None):
                raise OSError(ctypes.get_errno(), "mount")

    def vanish(self) -> None:
        os.rename(self.root, self.root + ".away")

    def starve(self) -> None:
        """Allow this process no more memory than it has."""
        with open("/proc/self/statm") as file:
            have = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (have, have))

    def jump(self) -> None:
        """Move the clock, and the stamps of everything that is there."""
        with open(self.told["clock"], "w") as file:
            file.write(str(self.told["seconds"]))
        stamp = time.time() + self.told["seconds"]
        for folder, _, names in os.walk(self.root):
            for name in names:
                os.utime(os.path.join(folder, name), (stamp, stamp))

    def pause(self) -> None:
        time.sleep(self.told["seconds"])
