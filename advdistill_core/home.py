"""The user's folder: the local server, built models, remembered hashes. Imported by every command."""

import os
from pathlib import Path


def home() -> Path:
    """The folder named by ADVDISTILL_HOME (default `~/.advdistill`); it need not exist yet."""
    return Path(os.environ.get("ADVDISTILL_HOME") or "~/.advdistill").expanduser().absolute()


def keep_inside() -> None:
    """Let libraries of this process and of its children write below that folder, not beside it.

    reasoning-gym imports matplotlib, which keeps a list of fonts. Prefect: see `flows.server`.
    """
    os.environ.setdefault("MPLCONFIGDIR", str(home() / "matplotlib"))
