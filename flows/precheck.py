"""Everything that can be found wrong before a model is loaded."""

import os
import shutil
from pathlib import Path

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.store.files import Files

# A response row in Parquet, text included, takes well under a kilobyte per 100 tokens.
_BYTES_PER_TOKEN = 8
# The student, its checkpoints (weights and two optimizer moments each) and one spare.
_STUDENT_COPIES = 12
_HEADROOM_BYTES = 200 << 20


def precheck(config: DistillConfig) -> None:
    """Check the root, the prompts' source, the models and the free disk space.

    Raises:
        InputError: naming the first thing that is wrong.
    """
    from advdistill_core import models
    from advdistill_core.prompts import precheck_source

    files = Files(config.storage.root)
    if files.is_local:
        _check_root(Path(files.root))
    precheck_source(config.prompts)
    models.check(config.teacher.model)
    models.check(config.student.model)
    if files.is_local:
        _check_space(config, Path(files.root))


def needed_bytes(config: DistillConfig) -> int:
    """An upper estimate of what a run writes, in bytes."""
    from advdistill_core import models

    responses = config.prompts.num_train * config.teacher.k * config.teacher.max_new_tokens * _BYTES_PER_TOKEN
    return responses + _STUDENT_COPIES * models.weight_bytes(config.student.model) + _HEADROOM_BYTES


def _check_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("storage.root", str(root), "a folder that can be made", str(error)) from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise InputError("storage.root", str(root), "a writable folder", "Choose another --root.")


def _check_space(config: DistillConfig, root: Path) -> None:
    needed, free = needed_bytes(config), shutil.disk_usage(root).free
    if free < needed:
        raise InputError(
            "storage.root",
            f"{free / 1e9:.1f} GB free in {root}",
            f"at least {needed / 1e9:.1f} GB",
            "Free some space or choose another --root.",
        )
