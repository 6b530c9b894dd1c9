"""The fixture of tests that need work pools."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_fixture import Cli

from flows.server import LocalServer

sys.path.insert(0, str(Path(__file__).parent))
from pool_stack import Stack


@pytest.fixture(scope="module")
def stack(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The session's server with everything deployed; a worker for the flows is running."""
    server = LocalServer(cli.home)
    ready = Stack(cli, server.start())
    environment = {**cli.environment(), "PREFECT_API_URL": ready.api}
    root = tmp_path_factory.mktemp("deployed")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "deploy", "--root", str(root)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ready.worker("cpu", "cpu-0", limit=6)
    try:
        yield ready
    finally:
        ready.stop()
