"""The fixture of tests that need work pools."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_fixture import Cli

sys.path.insert(0, str(Path(__file__).parent))
from pool_stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The session's server with everything deployed; a worker for the flows is running."""
    with running_stack(cli, tmp_path_factory.mktemp("deployed")) as ready:
        yield ready
