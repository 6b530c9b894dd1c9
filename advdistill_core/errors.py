"""The exceptions of the project: one hierarchy, picklable, each also a stdlib error.

`InputError` is the user's to mend (exit code 2); everything else is a run that failed
(exit code 1). Arguments are passed to `Exception` unchanged, so pickling needs no help.
"""

import errno
import ssl


class AdvDistillError(Exception):
    """Base of every error raised on purpose by this project."""


class InputError(AdvDistillError, ValueError):
    """Something the user gave cannot be used.

    Args:
        what: the setting, file or row, e.g. `prompts.path` or `data.jsonl row 3`.
        got: the value as given.
        expected: the rule it breaks.
        remedy: what to do about it.
    """

    def __init__(self, what: str, got: object, expected: str, remedy: str = "") -> None:
        super().__init__(what, got, expected, remedy)
        self.what, self.got, self.expected, self.remedy = what, got, expected, remedy

    def __str__(self) -> str:
        got = self.got if isinstance(self.got, str) else repr(self.got)
        got = got if len(got) <= 200 else got[:197] + "..."
        line = f"{self.what}: got {got}, expected {self.expected}."
        line += f" {self.remedy}" if self.remedy else ""
        return " ".join(line.split())  # one line, whatever the value held


class FingerprintError(AdvDistillError, TypeError):
    """A value has no stable form, so it must not enter a fingerprint."""


class ArtifactError(AdvDistillError, RuntimeError):
    """An artifact is missing, incomplete or altered."""


class StageError(AdvDistillError, RuntimeError):
    """A stage could not finish; what it had completed stays for the next attempt."""


class MachineError(StageError):
    """The disk, the memory or the network failed; the same command continues when it is mended."""


class ContaminationError(StageError):
    """Training texts repeat evaluation questions, and the configuration says to stop then."""


class BudgetError(StageError):
    """A token or money budget was reached; the stage can be resumed with a larger one."""


class ErrorRateError(StageError):
    """More items failed (timeouts, refused requests) than `max_error_frac` allows."""


_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Allow larger files",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Make it writable",
    errno.EPERM: "Make it writable",
    errno.ENOMEM: "Free some memory, or lower the batch sizes",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "Allow more open files",
    errno.ENOENT: "Bring it back",
    errno.EIO: "See to the disk",
    errno.ESTALE: "Bring it back",
    errno.ETIMEDOUT: "Bring it back",
    errno.ECONNREFUSED: "Bring it back",
    errno.ECONNRESET: "Bring it back",
    errno.ENETUNREACH: "Bring it back",
    errno.EHOSTUNREACH: "Bring it back",
}
#: Object stores refuse without a number.
_NUMBERS = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "can't start new thread",
    "failed to map segment",
    "memoryerror",
    "out of memory",
    "std::bad_alloc",
)


def machine_error(what: str, error: BaseException) -> MachineError | None:
    """The one line for a failure of the machine; None if an error is something else.

    Libraries raise OSErrors of many meanings: only numbers of the system that have a remedy count.

    Args:
        what: who failed, e.g. `stage load`.
    """
    if isinstance(error, ssl.SSLError):  # an OSError, but its numbers are those of TLS
        return None
    if isinstance(error, OSError):
        reason, number = _first_line(error), error.errno or _NUMBERS.get(type(error))
    elif isinstance(error, MemoryError) or tells_of_memory(str(error)):
        reason, number = f"out of memory ({_first_line(error)})", errno.ENOMEM
    else:
        return None
    remedy = _REMEDIES.get(number or 0)
    if remedy is None:
        return None
    return MachineError(f"{what}: {reason}. {remedy}; what was finished is kept, the same command continues.")


def tells_of_memory(text: str) -> bool:
    """Whether an error's text, whoever wrote it, says that memory ran out."""
    return any(known in text.lower() for known in _NO_MEMORY)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
