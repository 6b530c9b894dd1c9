"""A command that ends, with everything that it started, when whoever wanted it does.

`python -m advdistill_core.leash PARENT_PID GRACE_S COMMAND ARGUMENTS...`, started as the
leader of a process group, runs the command in that group and exits as it does. This process
stands between: where the parent is killed so that nothing in it can tidy up, the kernel
tells this one, which ends the group, politely and then for good, and with it whatever left
the group (orphans come to this process). Where this process is killed, the kernel kills the
command, and the parent can still end the group.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from advdistill_core.processes import become_reaper, die_with_parent

_POLL_S = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Told(Exception):
    """The parent is gone, or wants an end."""


def run(parent: int, grace_s: float, command: list[str]) -> int:
    """Run a command until it ends or the parent does; nothing of it is left afterwards.

    Returns:
        Its exit code as a shell gives it (128 + n after signal n).
    """

    def told(number: int, frame: FrameType | None) -> None:
        raise _Told

    me = os.getpid()
    become_reaper()
    child: subprocess.Popen[bytes] | None = None
    try:
        for number in _SIGNALS:
            signal.signal(number, told)
        die_with_parent(parent, signal.SIGTERM)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=lambda: die_with_parent(me))
        child.wait()
    except _Told:
        pass
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _end(child, grace_s)
    code = child.returncode if child and child.returncode is not None else 0
    return 128 - code if code < 0 else code


def _end(child: "subprocess.Popen[bytes] | None", grace_s: float) -> None:
    """Ask the group to end, wait for the command, kill what is left of all descendants."""
    os.killpg(0, signal.SIGTERM)  # this process ignores it by now
    if child is not None:
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    while left := _children():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        time.sleep(_POLL_S)  # their children come to us next


def _children() -> list[int]:
    """Processes whose parent this one is."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def main() -> None:
    """Entry of the process."""
    sys.exit(run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))


if __name__ == "__main__":
    main()
