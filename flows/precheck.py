"""Everything that can be found wrong before a model is loaded."""

import difflib
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

from advdistill_core import models, prompts, stages
from advdistill_core.config import DistillConfig, TeacherConfig
from advdistill_core.errors import InputError
from advdistill_core.models import pairing, smollm2
from advdistill_core.models.sources import as_folder
from advdistill_core.rewards import registry
from advdistill_core.store import Store
from advdistill_core.store.files import Files
from advdistill_core.teachers import backends, vllm_command
from advdistill_core.training import quantized
from flows import keys, roots
from flows.dry_run import plan
from tasks.devices import takes_gpu

# A response row in Parquet, text included, takes well under a kilobyte per 100 tokens.
_BYTES_PER_TOKEN = 8
# The student, its checkpoints (weights and two optimizer moments each) and one spare; what the
# first stage leaves to the second; the checkpoint of the best evaluation.
_STUDENT_COPIES, _OF_SECOND_STAGE, _OF_BEST = 12, 6, 3
_HEADROOM_BYTES = 200 << 20
_SMOLLM2_PARAMETERS = 135_000_000


def precheck(config: DistillConfig, make_root: bool = True) -> None:
    """Check the root, the prompts' source, the models and the free disk space.

    Nothing is written before all else is right, and nothing at all unless `make_root`.

    Raises:
        InputError: naming the first thing that is wrong.
    """
    keys.fetch(config.teacher)
    files = Files(config.storage.root)
    if files.is_local:
        roots.check_writable(Path(files.root))
    else:
        files.fs.patience_s = 0.0  # a wrong address is told at once
        _try_remote_root(files, lambda: files.exists(".probe"))
    _check_settings(config)
    for section, teacher in teachers(config.teacher):
        if teacher.backend == "transformers":
            _check_model(section, teacher.model)
        else:
            backends.precheck(teacher)
        if teacher.backend == "vllm" and config.placement == "local":  # elsewhere a worker has it
            vllm_command.find(teacher)
    _check_model("student", config.student.model)
    pairing.check(config)
    _check_layers(config)
    if files.is_local:
        _check_space(config, Path(files.root))
    check_prompts(config)
    _check_endpoints(config)
    if make_root and files.is_local:
        _make_root(Path(files.root))
    elif make_root:
        _try_remote_root(files, lambda: files.write(".probe", b"advdistill"))


def check_prompts(config: DistillConfig) -> None:
    """Look at questions that no earlier run has read and kept."""
    store = Store(config.storage.root)
    chosen = stages.plan_stage(stages.LOAD, config, {}, store)
    if store.manifest(stages.LOAD.name, chosen.fingerprint) is None:
        prompts.precheck(config.prompts)
    for place, one in enumerate(config.evaluation.sets):
        try:
            chosen = stages.plan_stage(stages.QUESTIONS, config, {}, store, {"set": one.name})
            if store.manifest(stages.QUESTIONS.name, chosen.fingerprint) is None:
                prompts.precheck(one)
        except InputError as error:
            what, remedy = (
                text.replace("prompts.", f"evaluation.sets.{place}.") for text in (error.what, error.remedy)
            )
            raise InputError(what, error.got, error.expected, remedy) from error


def teachers(first: TeacherConfig) -> list[tuple[str, TeacherConfig]]:
    """All teachers, each under the name of its section."""
    found = [("teacher", first)]
    for place, further in enumerate(first.mixture):
        own = {name: getattr(further, name) for name in type(further).model_fields}
        found.append((f"teacher.mixture.{place}", first.model_copy(update={**own, "mixture": []})))
    return found


def _check_endpoints(config: DistillConfig) -> None:
    """Ask each endpoint, if this process is the one that will and there is something to ask for."""
    asked = [(section, one) for section, one in teachers(config.teacher) if one.backend == "openai"]
    if not asked or takes_gpu(stages.GENERATE, config) or plan(config)["generate"] == "cached":
        return
    from advdistill_core.teachers.probe import probe

    for section, teacher in asked:
        probe(teacher, section)


def _check_layers(config: DistillConfig) -> None:
    """Whether the student has the layers that are to be kept."""
    kept, count = config.student.keep_layers, models.num_layers(config.student.model)
    if kept and count is not None and kept[-1] >= count:
        raise InputError(
            "student.keep_layers", kept, f"layers from 0 to {count - 1}", "Leave the others out."
        )


def _check_settings(config: DistillConfig) -> None:
    """What the stages behind the generation would refuse."""
    known = registry.names()
    if config.prompts.task not in known:
        near = difflib.get_close_matches(config.prompts.task, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
        raise InputError("prompts.task", config.prompts.task, "the task of a verifier", hint)
    if config.weighting.scheme == "linear" and config.student.negatives.kind == "off":
        raise InputError(
            "weighting.scheme",
            "linear",
            "a scheme without negative weights, whose loss has a bound",
            "Choose positive or a bounded student.negatives, or look at the weights with `advdistill weigh`.",
        )
    quantized.check(config.student)
    early = config.student.early_stopping
    if early.every_steps and early.num_prompts >= config.prompts.num_train:
        raise InputError(
            "student.early_stopping.num_prompts",
            early.num_prompts,
            f"fewer than prompts.num_train, {config.prompts.num_train}",
        )
    for tracker in config.student.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise InputError(
                "student.report_to", tracker, "an installed tracker", "Install advdistill[tracking]."
            )


def needed_bytes(config: DistillConfig) -> int:
    """An upper estimate of what a run writes, in bytes."""
    responses = config.prompts.num_train * config.teacher.k * config.teacher.max_new_tokens * _BYTES_PER_TOKEN
    copies = _STUDENT_COPIES + _OF_SECOND_STAGE * (config.student.negatives.kind != "off")
    copies += _OF_BEST * (config.student.early_stopping.every_steps > 0)
    return responses + copies * _weight_bytes(config.student.model) + _HEADROOM_BYTES


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


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{root} ({error.strerror})"
        raise InputError(
            "storage.root", problem, "a folder that can be made", "Choose another --root."
        ) from error


def _try_remote_root(files: Files, attempt: Callable[[], object]) -> None:
    """Look, or write a few bytes: the bucket exists, is reachable and lets us."""
    try:
        attempt()
    except Exception as error:  # file systems have errors of their own
        raise InputError(
            "storage.root",
            files.uri,
            "a place that can be written",
            f"{type(error).__name__}: {error}. Check the bucket, the endpoint and the credentials.",
        ) from error


def _check_space(config: DistillConfig, root: Path) -> None:
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    needed, free = needed_bytes(config), shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            "storage.root",
            f"{free / 1e9:.1f} GB free in {root}",
            f"at least {needed / 1e9:.1f} GB",
            "Free some space or choose another --root.",
        )
