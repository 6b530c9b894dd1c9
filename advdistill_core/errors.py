"""The exceptions of the project: one hierarchy, picklable, each also a stdlib error.

`InputError` is the user's to mend (exit code 2); everything else is a run that failed
(exit code 1). Arguments are passed to `Exception` unchanged, so pickling needs no help.
"""


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


class ContaminationError(StageError):
    """Training texts repeat evaluation questions, and the configuration says to stop then."""


class BudgetError(StageError):
    """A token or money budget was reached; the stage can be resumed with a larger one."""


class ErrorRateError(StageError):
    """More items failed (timeouts, refused requests) than `max_error_frac` allows."""
