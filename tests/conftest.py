"""Fixtures that every test may use."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from server_fixture import Cli, running_server

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real prompts and model outputs kept beside the checkout; required in CI."""
    if not SHARED_DATA.is_dir():
        message = f"the sample data is not at {SHARED_DATA}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return SHARED_DATA


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line, with a real Prefect server that all tests of the session share."""
    with running_server(tmp_path_factory.mktemp("home")) as ready:
        yield ready
