"""The backends: what can be found wrong before one starts, and starting it."""

import tempfile
from pathlib import Path

from advdistill_core import models
from advdistill_core.config import TeacherConfig
from advdistill_core.models.sources import folder_hash
from advdistill_core.teachers.protocol import Teacher, Tell, say_nothing


def precheck(config: TeacherConfig) -> None:
    """Find what is wrong with a teacher's settings, cheaply.

    Raises:
        InputError: the model cannot be used, or the endpoint's address or key is missing.
    """
    if config.backend == "openai":
        from advdistill_core.teachers import endpoint

        endpoint.precheck(config)
    elif config.backend == "vllm":
        from advdistill_core.teachers import vllm_command

        vllm_command.precheck(config)
    else:
        models.check(config.model)


def model_identity(config: TeacherConfig) -> str:
    """A local model by its content; behind an endpoint only its name is known."""
    if config.backend == "openai":
        return f"endpoint:{config.model}"
    identity = models.identity(config.model)
    if config.backend == "vllm" and config.vllm.lora:
        identity += f"+lora:{folder_hash(Path(config.vllm.lora).expanduser())}"
    return identity


def open_teacher(config: TeacherConfig, folder: Path | None = None, tell: Tell = say_nothing) -> Teacher:
    """Load the model, start its server, or get ready to ask the endpoint.

    Args:
        folder: where a server's log is kept; None for a new temporary folder.
        tell: told what is waited for.

    Raises:
        InputError: see `precheck`.
        StageError: a server did not start.
    """
    if config.backend == "openai":
        from advdistill_core.teachers.endpoint import Endpoint

        return Endpoint(config, tell)
    if config.backend == "vllm":
        from advdistill_core.teachers.vllm import Vllm

        return Vllm(config, folder or Path(tempfile.mkdtemp(prefix="advdistill-vllm-")), tell)
    from advdistill_core.teachers.local import Engine

    model = models.load_model(config.model, config.dtype, config.device, config.trust_remote_code)
    return Engine(model, models.load_tokenizer(config.model, config.trust_remote_code), config.batch_size)
