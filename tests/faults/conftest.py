"""The laboratory of the fault tests."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("", "injected"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
import matrix  # noqa: E402
from lab import Lab  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def one_pass() -> Iterator[None]:
    """What these tests find is of one pass, and it alone is in the table."""
    matrix.begin()
    yield
    matrix.end()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and "tests/faults/" in report.nodeid:
        matrix.failed(report.nodeid.rpartition("/")[2])


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    import torch

    torch.set_num_threads(1)  # as the processes that it starts
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it is forked
    return Lab(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A place for a store."""
    return tmp_path / "store"


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that, preloaded, moves the clock of a process."""
    import subprocess

    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).parent / "injected" / "clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made
