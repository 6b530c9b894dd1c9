"""What the log of a run says of an error that we foresaw: its one line, once."""

import logging

from advdistill_core.errors import AdvDistillError

#: The loggers that Prefect's engine tells of exceptions.
#: How it begins to tell that an exception ended a flow or, after its retries, a task.
_OF_THE_RUN = ("Encountered exception during execution", "Engine execution exited", "Task run failed with")
_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class OneLine(logging.Filter):
    """Leaves the path through the code out, which hides the line that says what to do.

    With PREFECT_LOGGING_LEVEL=DEBUG all of it is there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten a record; one of an error that was told already is dropped."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, AdvDistillError) or logging.getLogger(record.name).isEnabledFor(
            logging.DEBUG
        ):
            return True
        record.exc_info = None
        if not str(record.msg).startswith(_OF_THE_RUN):
            return True
        if error is self._told:
            return False
        self._told = error
        record.msg, record.args = str(error), ()
        return True


def install() -> None:
    """Let the logs of this process's runs be so."""
    found = OneLine()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(found)
