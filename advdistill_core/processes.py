"""Processes that end with the one that started them, and ending a group of them for good."""

import contextlib
import ctypes
import os
import signal
import subprocess
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent(parent: int, sent: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when its parent ends; leave if it has already.

    The kernel means the parent's thread: start such a process from one that stays.

    Args:
        parent: the process that must still be the parent.
        sent: the signal, SIGKILL for an end that nothing can delay.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sent)
    if os.getppid() != parent:
        os._exit(1)


def become_reaper() -> None:
    """Let descendants of this process that lose their parent come to it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_group(leader: "subprocess.Popen[Any]", grace_s: float) -> None:
    """End a process group: politely, then for good.

    Args:
        leader: the child that leads the group (`start_new_session`).
        grace_s: how long it may take after each signal, in seconds.
    """
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if leader.poll() is not None:
            break
        os.killpg(leader.pid, sent)
        try:
            leader.wait(grace_s)
        except subprocess.TimeoutExpired:
            continue
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)  # grandchildren that outlived it
