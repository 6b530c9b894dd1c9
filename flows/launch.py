"""Run a flow from the command line against a real server, with live progress."""

import os
from typing import Any

from advdistill_core.config import DistillConfig
from flows.server import connect
from flows.terminal import Display


def run_here(config: DistillConfig) -> dict[str, Any]:
    """Run `distill` in this process.

    The server, when it must be started, starts while Prefect is imported.
    """
    # Prefect's log lines are for its UI; the terminal shows progress instead.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    server = connect()
    with Display() as display:
        if server and server.started:
            display.console.print("Starting a Prefect server ...", style="dim")
        from flows.distill import distill
        from tasks import progress

        if server:
            server.wait()
            display.console.print(f"Prefect UI: {server.ui_url}", style="dim", soft_wrap=True)
        token = progress.display.set(display)
        try:
            return distill(config)
        finally:
            progress.display.reset(token)
