"""GPU memory as a stand-in for the driver's tool tells it."""

import threading
import time
from pathlib import Path

import pytest

from advdistill_core import gpu


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool that says what is in a file."""
    said = tmp_path / "said"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat {said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return said


def test_memory_of_all_gpus_is_added(tool: Path) -> None:
    tool.write_text("1200\n300\n")
    assert gpu.used_mib() == 1500
    tool.write_text("No devices were found\n")
    assert gpu.used_mib() == 0


def test_no_tool_no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.used_mib() == 0
    assert gpu.wait_until_free(0) == 0


def test_it_waits_and_tells_what_stays(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_POLL_S", 0.02)
    tool.write_text("5000\n")
    freed = threading.Timer(0.3, lambda: tool.write_text("110\n"))
    freed.start()
    began = time.monotonic()
    assert gpu.wait_until_free(100) == 0
    assert time.monotonic() - began >= 0.29
    tool.write_text("5000\n")
    assert gpu.wait_until_free(100, patience_s=0) == 4900
