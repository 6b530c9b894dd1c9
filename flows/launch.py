"""Run a flow from the command line against a real server, with live progress."""

import logging
from typing import Any

from advdistill_core.config import DistillConfig
from flows.server import connect
from flows.terminal import Display


def run_here(config: DistillConfig) -> dict[str, Any]:
    """Run `distill` in this process.

    The server, when it must be started, starts while Prefect is imported.
    """
    server = connect()
    with Display() as display:
        if server and server.started:
            display.console.print("Starting a Prefect server ...", style="dim")
        from flows.distill import distill
        from tasks import progress

        if server:
            server.wait()
            display.console.print(f"Prefect UI: {server.ui_url}", style="dim", soft_wrap=True)
        _quiet_console()
        token = progress.display.set(display)
        try:
            return distill(config)
        finally:
            progress.display.reset(token)


def _quiet_console() -> None:
    """Keep Prefect's log lines for its UI; the terminal shows progress instead."""
    from prefect.logging.handlers import PrefectConsoleHandler

    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.setLevel(logging.CRITICAL)
