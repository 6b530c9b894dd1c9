"""Where this machine keeps what is not an artifact: the server's database, model caches."""

import os
from pathlib import Path


def home_folder() -> Path:
    """`$ADVDISTILL_HOME`, or `~/.advdistill`."""
    return Path(os.environ.get("ADVDISTILL_HOME") or Path.home() / ".advdistill").absolute()
