"""Progress of a stage: to the terminal that asked for it and to the Prefect UI."""

import logging
import time
from contextvars import ContextVar
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import PrefectException

from advdistill_core.progress import SECONDS_LEFT, Event, Progress, silent
from advdistill_core.report.wording import duration

#: Where a command line shows events. A context variable, because a task's parameters are
#: its identity and a display is not part of that.
display: ContextVar[Progress] = ContextVar("display", default=silent)

_UPDATE_EVERY_S = 2.0


class Reporter:
    """Passes a stage's events on: all of them to the display, few of them to Prefect."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._artifact: UUID | None = None
        self._last = 0.0
        self._in_run = (TaskRunContext.get() or FlowRunContext.get()) is not None

    def __call__(self, event: Event) -> None:
        display.get()(event)
        now = time.monotonic()
        finished = event.total > 0 and event.done >= event.total
        if not self._in_run or event.total == 0 or (now - self._last < _UPDATE_EVERY_S and not finished):
            return
        self._last = now
        percent = round(min(100.0, 100.0 * event.done / event.total), 1)
        seconds = 0.0 if finished else event.figures.get(SECONDS_LEFT, 0.0)
        left = f"{duration(seconds)} left" if seconds else ""
        text = f"{self.stage}: {event.done} of {event.total} {event.unit}"
        self.show(percent, ", ".join(part for part in (text, left, *event.told(), event.message) if part))

    def show(self, percent: float, text: str) -> None:
        """Set the progress artifact of this run, making it the first time.

        A server that does not answer for a while costs the display, never the stage.
        """
        try:
            if self._artifact is None:
                self._artifact = cast(UUID, create_progress_artifact(percent, description=text))
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except (httpx.HTTPError, PrefectException) as error:
            logging.getLogger(__name__).warning("progress not shown: %s", error)
