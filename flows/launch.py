"""Run a flow from the command line against a real server, with live progress."""

import importlib
import os
from typing import Any, Literal

from advdistill_core.config import DistillConfig
from flows.server import HEARTBEAT_S, connect
from flows.terminal import Display


def run_here(
    config: DistillConfig, name: Literal["distill", "compare"] = "distill", **parameters: Any
) -> dict[str, Any]:
    """Run a flow in this process.

    Args:
        name: the flow, which has its name in the module of its name.
        **parameters: what it takes beside the configuration.

    The server, when it must be started, starts while Prefect is imported.
    """
    # Prefect's log lines are for its UI; the terminal shows progress instead.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")  # else whole events
    # The watch over dead runs, which `up` and `deploy` register, expects it; Prefect's own are rarer.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))
    server = connect()
    with Display() as display:
        if server and server.started:
            display.console.print("Starting a Prefect server ...", style="dim")
        from prefect import tags

        from flows.deployments import TAG
        from tasks import progress

        start = getattr(importlib.import_module(f"flows.{name}"), name)
        if server:
            server.wait()
            display.console.print(f"Prefect UI: {server.ui_url}", style="dim", soft_wrap=True)
        token = progress.display.set(display)
        try:
            with tags(TAG):
                summary: dict[str, Any] = start(config, **parameters)
            return summary
        finally:
            progress.display.reset(token)
