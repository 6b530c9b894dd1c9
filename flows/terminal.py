"""Live progress on the terminal: what runs, how far it is, how fast, how long still."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from advdistill_core.progress import Event
from advdistill_core.report.wording import duration

_PLAIN_EVERY_S = 15.0


class Display:
    """Shows events as progress bars, or as a line now and then where there is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
        )
        self._rows: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int, int]] = {}
        self._last_done: dict[str, int] = {}
        self._last_plain = 0.0
        self._last_line = ""
        self._last_told = ""  # message

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:  # else it would print an empty line
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        began = self._began.get(event.stage)
        if began is None or event.done < self._last_done[event.stage]:  # evaluate runs twice
            self._began[event.stage] = began = (now, event.tokens, event.done)
        self._last_done[event.stage] = event.done
        detail = self._detail(event, now - began[0], event.tokens - began[1])
        if not self.console.is_terminal:
            self._plain(event, detail, now)
            return
        row = self._rows.get(event.stage)
        if row is None:
            row = self._rows[event.stage] = self._bars.add_task(event.stage, total=1, count="", detail="")
        if event.total:
            self._bars.update(row, completed=event.done, total=event.total, count=_count(event))
        self._bars.update(row, detail=detail)

    @staticmethod
    def _detail(event: Event, seconds: float, tokens: int) -> str:
        parts = event.told()
        if tokens and seconds > 1 and "tokens/s" not in event.figures:
            parts.append(f"{tokens / seconds:.0f} tokens/s")
        if event.message:
            parts.append(event.message)
        return ", ".join(parts)

    def _plain(self, event: Event, detail: str, now: float) -> None:
        finished = bool(event.total) and event.done >= event.total
        is_news = bool(event.message) and not self._last_told  # a remark does not wait for its turn
        if now - self._last_plain < _PLAIN_EVERY_S and not finished and not is_news:
            return
        self._last_plain, self._last_told = now, event.message
        began, _, done_at_start = self._began[event.stage]
        rate = (event.done - done_at_start) / max(now - began, 1e-9)
        left = f"{duration((event.total - event.done) / rate)} left" if rate > 0 and not finished else ""
        told = ", ".join(part for part in (_count(event), left, detail) if part)
        line = f"{event.stage}: {told}"
        if line != self._last_line:  # the last response and the whole stage end alike
            print(line, file=sys.stderr, flush=True)
        self._last_line = line


def _count(event: Event) -> str:
    """How far it is; nothing where there is nothing to count."""
    return f"{event.done}/{event.total} {event.unit}" if event.total else ""
