"""`advdistill doctor`: what this machine has, what a recipe needs, and what to do about the rest.

Nothing heavy is imported: torch is judged by its files and the GPU by the driver's tool.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

import httpx
from packaging.requirements import Requirement

from advdistill_core import models
from advdistill_core.config import DistillConfig, TeacherConfig
from advdistill_core.errors import InputError
from advdistill_core.home import home
from advdistill_core.stages import STAGES
from flows import precheck, roots
from flows.deployments import CPU, GPU
from flows.server import LocalServer, client_of, healthy
from tasks.devices import takes_gpu

_OLDEST, _NEWEST = (3, 11), (3, 13)
_LITTLE_BYTES = 5 << 30  # less free disk than this is worth a word
_ASK_S = 4.0
_BUSY_S = 15.0  # a server that starts workers and takes runs at once may need this long
_CUDA_OF_TORCH = re.compile(r"^cuda[^=]*= *'([^']+)'", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Args:
        state: a warning works but may surprise; a problem keeps something from working.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


Check = Callable[[DistillConfig, bool], Finding | list[Finding]]


def examine(config: DistillConfig, for_recipe: bool) -> list[Finding]:
    """Make all checks, side by side.

    Args:
        for_recipe: whether `config` is what somebody wants to run, not only the defaults.
    """
    with ThreadPoolExecutor() as pool:
        found = [pool.submit(_safely, check, config, for_recipe) for check in _CHECKS]
        return [finding for one in found for finding in one.result()]


def _safely(check: Check, config: DistillConfig, for_recipe: bool) -> list[Finding]:
    try:
        found = check(config, for_recipe)
    except InputError as error:
        found = Finding(
            error.what, "problem", f"{_shown(error.got)}, expected {error.expected}", error.remedy
        )
    return [found] if isinstance(found, Finding) else found


def _python(config: DistillConfig, for_recipe: bool) -> Finding:
    text = f"{sys.version.split()[0]} at {sys.executable}"
    if _OLDEST <= sys.version_info[:2] <= _NEWEST:
        return Finding("Python", "ok", text)
    return Finding("Python", "problem", text, "Use Python 3.11 to 3.13.")


def _packages(config: DistillConfig, for_recipe: bool) -> list[Finding]:
    """The packages that the project asks for, in versions that were shown to work together."""
    wrong = []
    try:
        needs = requires("advdistill") or []
    except PackageNotFoundError:
        return [Finding("packages", "problem", "advdistill is not installed", "pip install -e .")]
    for text in needs:
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        have = _version(need.name)
        if have is None or not need.specifier.contains(have, prereleases=True):
            wrong.append(f"{need.name} {have or 'is missing'} (needs {need.specifier})")
    state: Literal["ok", "problem"] = "problem" if wrong else "ok"
    remedy = "Install the project again: pip install -e ." if wrong else ""
    listed = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "prefect"))
    return [Finding("packages", state, "; ".join(wrong) or listed, remedy)]


def _gpu(config: DistillConfig, for_recipe: bool) -> Finding:
    """The GPUs that the driver sees, and whether the installed torch can use them."""
    cuda, gpus = _torch_cuda(), _gpus()
    if gpus and cuda:
        return Finding("GPU", "ok", f"{'; '.join(gpus)}; torch for CUDA {cuda}")
    if gpus:
        return Finding(
            "GPU", "warning", f"{'; '.join(gpus)}, but torch is built for CPU", "Install torch for CUDA."
        )
    wants = [
        name
        for name, section in (("teacher", config.teacher), ("student", config.student))
        if section.device.startswith("cuda")
    ]
    if wants:
        return Finding(
            "GPU", "problem", "none", f"Set {wants[0]}.device to cpu, or run on a machine with one."
        )
    return Finding("GPU", "ok", "none; models run on the CPU")


def _gpus() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = ["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run([tool, *query], capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in answer.stdout.splitlines() if line.strip()]
    return [
        f"{name}, {int(free) / 1024:.0f} of {int(total) / 1024:.0f} GiB free" for name, total, free in rows
    ]


def _torch_cuda() -> str | None:
    """The CUDA version that torch is built for; None without torch or for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    found = _CUDA_OF_TORCH.search((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"))
    return found[1] if found else None


def _vllm(config: DistillConfig, for_recipe: bool) -> Finding:
    from advdistill_core.teachers import vllm_command

    needed = any(one.backend == "vllm" for _, one in precheck.teachers(config.teacher))
    try:
        build = vllm_command.find(config.teacher)
    except InputError as error:
        if needed:
            return Finding(
                "vLLM", "problem", "not installed, and the teacher's backend is vllm", error.remedy
            )
        return Finding("vLLM", "ok", "not installed; only teacher.backend vllm needs it")
    return Finding("vLLM", "ok", f"{build.version} for {'CPU' if build.on_cpu else 'GPU'}")


def _disk(config: DistillConfig, for_recipe: bool) -> list[Finding]:
    found = []
    if "://" not in config.storage.root:
        needed = precheck.needed_bytes(config) if for_recipe else 0
        found.append(_space("storage.root", Path(config.storage.root), needed))
    return [*found, _space("home", home(), 0)]


def _space(name: str, folder: Path, needed: int) -> Finding:
    roots.check_writable(folder, name)
    there = next(above for above in (folder, *folder.parents) if above.is_dir())
    free = shutil.disk_usage(there).free
    text = f"{folder}: can be written, {free / 1e9:.0f} GB free"
    if free < needed:
        return Finding(
            name, "problem", f"{text}, the run may need {needed / 1e9:.0f} GB", "Free some or move it."
        )
    if free < _LITTLE_BYTES:
        return Finding(name, "warning", text, "Free some space or move it.")
    return Finding(name, "ok", text)


def _prefect(config: DistillConfig, for_recipe: bool) -> list[Finding]:
    """The server, and what placement pools needs on it."""
    named, local = os.environ.get("PREFECT_API_URL"), LocalServer()
    on_pools = config.placement == "pools"
    if not named and not local.running():
        if on_pools:
            return [
                Finding("Prefect server", "problem", "none, and placement is pools", "Start `advdistill up`.")
            ]
        return [Finding("Prefect server", "ok", "none; a run starts one on this machine")]
    url = named or local.address()
    if not healthy(url, _BUSY_S):
        remedy = "Start it, or unset PREFECT_API_URL."
        if not named:
            remedy = "Look again in a minute, it may wait for its database; else `advdistill down` stops it."
        return [Finding("Prefect server", "problem", f"{url} does not answer", remedy)]
    on_gpu = any(takes_gpu(stage, config) for stage in STAGES.values())
    return [Finding("Prefect server", "ok", url), *_pools(url, {CPU: on_pools, GPU: on_gpu})]


def _pools(url: str, wanted: dict[str, bool]) -> Iterator[Finding]:
    with client_of(url, _ASK_S) as client:
        for pool, needed in wanted.items():
            name, missing = f"pool {pool}", _missing(needed)
            try:
                answer = client.post(f"/work_pools/{pool}/workers/filter", json={})
            except httpx.HTTPError as error:
                yield Finding(name, "warning", f"not told ({type(error).__name__})", "Ask again.")
                continue
            if answer.status_code in (401, 403):
                yield Finding(name, "problem", "the server wants a login", "Set PREFECT_API_AUTH_STRING.")
            elif answer.status_code == 404:
                remedy = "`advdistill deploy` makes it, `advdistill up` starts workers too."
                yield Finding(name, missing, "none; only placement pools needs it", remedy if needed else "")
            elif answer.is_success:
                yield _workers(name, pool, answer.json(), missing)
            else:
                yield Finding(name, "warning", f"status {answer.status_code}", "Look at the server's log.")


def _missing(needed: bool) -> Literal["ok", "problem"]:
    return "problem" if needed else "ok"


def _workers(name: str, pool: str, listed: Any, missing: Literal["ok", "problem"]) -> Finding:
    online = [worker["name"] for worker in listed if worker.get("status") == "ONLINE"]
    if online:
        return Finding(name, "ok", f"{len(online)} worker(s): {', '.join(online)}")
    remedy = f"prefect worker start --type process --pool {pool}"
    return Finding(name, missing, "no worker", remedy if missing == "problem" else "")


def _teachers(config: DistillConfig, for_recipe: bool) -> list[Finding]:
    return [one for name, teacher in precheck.teachers(config.teacher) for one in _teacher(name, teacher)]


def _teacher(name: str, teacher: TeacherConfig) -> Iterator[Finding]:
    if teacher.backend != "openai":
        yield _model(name, teacher.model)
        return
    from advdistill_core.teachers.probe import probe

    key = teacher.api_key_env
    if key and not os.environ.get(key):
        yield Finding(f"{name} key", "problem", f"{key} is not set", f"Put the key into {key}.")
        return
    yield Finding(f"{name} key", "ok", f"{key} is set" if key else "none is used")
    try:
        probe(teacher, name)
    except InputError as error:
        yield Finding(name, "problem", f"{_shown(error.got)}, expected {error.expected}", error.remedy)
        return
    yield Finding(name, "ok", f"{teacher.model} answers at {teacher.base_url}")


def _student(config: DistillConfig, for_recipe: bool) -> Finding:
    return _model("student", config.student.model)


def _model(name: str, model: str) -> Finding:
    try:
        models.check(model)
    except InputError as error:
        return Finding(name, "problem", f"{_shown(error.got)}, expected {error.expected}", error.remedy)
    return Finding(name, "ok", f"{model}: {models.whereabouts(model)}")


def _questions(config: DistillConfig, for_recipe: bool) -> list[Finding]:
    if not for_recipe:
        return []
    precheck.check_prompts(config)
    source = config.prompts.path or config.prompts.dataset or "generated"
    return [Finding("questions", "ok", f"{source}, {len(config.evaluation.sets)} further set(s)")]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


_CHECKS: tuple[Check, ...] = (
    _python,
    _packages,
    _gpu,
    _vllm,
    _disk,
    _prefect,
    _teachers,
    _student,
    _questions,
)
