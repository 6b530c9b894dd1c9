"""A remote file system that does not answer is asked again for a while.

A run of many hours should not end because its object store was restarted. Answers that are
refusals (no such file, no right to it) are passed on at once, and so are failures of this
machine's own disk: waiting frees no space on it.
"""

import errno
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

#: How long an outage may last, in seconds.
PATIENCE_S = 180.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_ANSWERS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
#: What this machine says of its own disk and files while something is fetched or sent.
_OURS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EFBIG,
    errno.ENOMEM,
}

T = TypeVar("T")


class Patient:
    """Passes calls on to a file system, again and again while it does not answer.

    Args:
        fs: an fsspec file system.
        name: what to call it in messages.
    """

    def __init__(self, fs: Any, name: str) -> None:
        self._fs, self._name = fs, name
        self.patience_s = PATIENCE_S

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._fs, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self.ask(lambda: found(*args, **kwargs))

    def ask(self, call: Callable[[], T]) -> T:
        """Make a call that may be made twice.

        Raises:
            OSError: a refusal, or no answer for `patience_s`.
        """
        since, wait_s = time.monotonic(), _FIRST_WAIT_S
        while True:
            try:
                return call()
            except Exception as error:  # file systems have errors of their own
                if not _is_silence(error):
                    raise
                if time.monotonic() - since > self.patience_s:
                    told = f"no answer for {self.patience_s:.0f} s ({type(error).__name__}: {error})"
                    raise OSError(errno.ETIMEDOUT, told, self._name) from error
                if wait_s == _FIRST_WAIT_S:
                    logging.getLogger(__name__).warning("%s does not answer; trying on", self._name)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _is_silence(error: Exception) -> bool:
    """Whether an error is no answer: one of the network, or of a file system's own kind."""
    if isinstance(error, OSError):
        return not isinstance(error, _ANSWERS) and error.errno not in _OURS
    return type(error).__module__ != "builtins"
