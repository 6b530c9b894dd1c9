"""The memory in use on this machine's NVIDIA GPUs, as the driver's own tool tells it."""

import shutil
import subprocess
import time

_ASK_LIMIT_S = 30.0
_POLL_S = 0.5
_TOLERANCE_MIB = 64  # other programs come and go


def used_mib() -> int:
    """Memory in use on all GPUs together, in MiB; 0 where there is no GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_ASK_LIMIT_S,
            check=True,
        )
        return sum(int(line) for line in answer.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):  # installed, but without a GPU
        return 0


def wait_until_free(before_mib: int, patience_s: float = 30.0) -> int:
    """Wait until no more memory is in use than before.

    Returns:
        How much more there is after `patience_s`, in MiB; 0 when it is back.
    """
    deadline = time.monotonic() + patience_s
    while (left := used_mib() - before_mib) > _TOLERANCE_MIB:
        if time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)
    return 0
