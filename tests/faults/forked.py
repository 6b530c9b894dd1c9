"""A process that has imported everything when it starts: a fork of this one."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path


class Forked:
    """A function in a process of its own, to be treated as `subprocess.Popen` is.

    Args:
        work: what to do; ends by `SystemExit`.
        folder: for what it prints.
        environment: added to that of this process.
    """

    def __init__(self, work: Callable[[], None], folder: Path, environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self._started = time.monotonic_ns()
        self._outputs = [folder / f"{kind}-{self._started}" for kind in ("out", "err")]
        self.pid = os.fork()
        if not self.pid:
            _work(work, self._outputs, environment)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; returns what it printed on both outputs."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"still running after {timeout} s")
            time.sleep(0.01)
        out, err = (path.read_text() for path in self._outputs)
        return out, err


def _work(work: Callable[[], None], outputs: list[Path], environment: Mapping[str, str]) -> None:
    """The rest of the new process's life."""
    code = 1
    try:
        for number, path in zip((1, 2), outputs, strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.environ.update(environment)
        work()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - it must not go on as a copy of the tests
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
