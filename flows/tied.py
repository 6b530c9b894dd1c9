"""Run a module that dies with the process that started it.

`python -m flows.tied PARENT_PID MODULE ARGUMENTS...` replaces itself by `python -m MODULE
ARGUMENTS...`; the parent-death signal outlasts the replacement.
"""

import os
import sys

from advdistill_core.child import die_with_parent


def main() -> None:
    """Tie this process to its parent and become the module."""
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])


if __name__ == "__main__":
    main()
