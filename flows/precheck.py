"""Everything that can be found wrong before a model is loaded."""

import difflib
import importlib.util
import os
import shutil
from pathlib import Path

from advdistill_core import models, prompts
from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.models import smollm2
from advdistill_core.models.sources import as_folder
from advdistill_core.rewards import registry
from advdistill_core.store.files import Files
from advdistill_core.teachers import backends

# A response row in Parquet, text included, takes well under a kilobyte per 100 tokens.
_BYTES_PER_TOKEN = 8
# The student, its checkpoints (weights and two optimizer moments each) and one spare.
_STUDENT_COPIES = 12
_HEADROOM_BYTES = 200 << 20
_SMOLLM2_PARAMETERS = 135_000_000


def precheck(config: DistillConfig) -> None:
    """Check the root, the prompts' source, the models and the free disk space.

    Raises:
        InputError: naming the first thing that is wrong.
    """
    files = Files(config.storage.root)
    if files.is_local:
        _check_root(Path(files.root))
    else:
        _check_remote_root(files)
    prompts.precheck(config.prompts)
    _check_settings(config)
    if config.teacher.backend == "transformers":
        _check_model("teacher", config.teacher.model)
    else:
        backends.precheck(config.teacher)
    _check_model("student", config.student.model)
    if files.is_local:
        _check_space(config, Path(files.root))


def _check_settings(config: DistillConfig) -> None:
    """What the stages behind the generation would refuse."""
    known = registry.names()
    if config.prompts.task not in known:
        near = difflib.get_close_matches(config.prompts.task, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
        raise InputError("prompts.task", config.prompts.task, "the task of a verifier", hint)
    if config.weighting.scheme == "linear":
        raise InputError(
            "weighting.scheme",
            "linear",
            "a scheme without negative weights, whose loss has a bound",
            "Choose positive, or look at the weights with `advdistill weigh`.",
        )
    for tracker in config.student.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise InputError(
                "student.report_to", tracker, "an installed tracker", "Install advdistill[tracking]."
            )


def needed_bytes(config: DistillConfig) -> int:
    """An upper estimate of what a run writes, in bytes."""
    responses = config.prompts.num_train * config.teacher.k * config.teacher.max_new_tokens * _BYTES_PER_TOKEN
    return responses + _STUDENT_COPIES * _weight_bytes(config.student.model) + _HEADROOM_BYTES


def _check_model(section: str, name: str) -> None:
    try:
        models.check(name)
    except InputError as error:
        raise InputError(f"{section}.{error.what}", error.got, error.expected, error.remedy) from error


def _weight_bytes(name: str) -> int:
    """Size of a model's weights as float32; 0 for a Hub model, which is not here yet."""
    if name == smollm2.NAME:
        return 4 * _SMOLLM2_PARAMETERS
    folder = as_folder(name)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder else 0


def _check_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("storage.root", str(root), "a folder that can be made", str(error)) from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise InputError("storage.root", str(root), "a writable folder", "Choose another --root.")


def _check_remote_root(files: Files) -> None:
    """Write a few bytes: the bucket exists, is reachable and lets us."""
    try:
        files.write(".probe", b"advdistill")
    except Exception as error:  # file systems have errors of their own
        raise InputError(
            "storage.root",
            files.uri,
            "a place that can be written",
            f"{type(error).__name__}: {error}. Check the bucket, the endpoint and the credentials.",
        ) from error


def _check_space(config: DistillConfig, root: Path) -> None:
    needed, free = needed_bytes(config), shutil.disk_usage(root).free
    if free < needed:
        raise InputError(
            "storage.root",
            f"{free / 1e9:.1f} GB free in {root}",
            f"at least {needed / 1e9:.1f} GB",
            "Free some space or choose another --root.",
        )
