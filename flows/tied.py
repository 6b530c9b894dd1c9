"""Processes that end with the one that started them, also when that was killed.

`python -m flows.tied PARENT_PID MODULE ARGUMENTS...` replaces itself by `python -m MODULE
ARGUMENTS...`; the parent-death signal outlasts the replacement.
"""

import os
import sys
import threading
import time
from pathlib import Path

from advdistill_core.processes import die_with_parent

#: Names the process of `advdistill up` that a flow's process must not outlive. It is an
#: ancestor but not the parent: a flow does outlive a killed worker, which then loses nothing.
OWNER = "ADVDISTILL_OWNER_PID"
_POLL_S = 1.0


def end_with_owner() -> None:
    """End this process when the one named by the environment, if any, is gone."""
    owner = os.environ.get(OWNER)
    if owner and threading.current_thread() is threading.main_thread():
        threading.Thread(target=_wait_for_end, args=(int(owner),), daemon=True).start()


def _wait_for_end(owner: int) -> None:
    while Path(f"/proc/{owner}/stat").exists():
        time.sleep(_POLL_S)
    os._exit(1)  # children that run stages die with their parent


def main() -> None:
    """Tie this process to its parent and become the module."""
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])


if __name__ == "__main__":
    main()
