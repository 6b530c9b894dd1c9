"""Running the command line against a real Prefect server of the test session."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.server import LocalServer


@dataclass
class Cli:
    """Runs `advdistill` as a user would, in a home of its own."""

    home: Path

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "ADVDISTILL_"))}
        return {**kept, "ADVDISTILL_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}

    def start(self, *arguments: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )

    def __call__(self, *arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, cwd=cwd)
        out, err = process.communicate(timeout=500)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str) -> dict[str, Any]:
        """Run with `--json`, which must succeed, and read the last line."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@contextmanager
def running_server(home: Path) -> Iterator[Cli]:
    """A server that ends with the block, whatever happened in it."""
    server = LocalServer(home)
    server.home.mkdir(parents=True, exist_ok=True)
    server.start(tied=True)  # ends with a test session that is killed, too
    try:
        server.wait()
        yield Cli(home)
    finally:
        server.stop()


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
