"""The backends: what can be found wrong before one starts, and starting it."""

from advdistill_core import models
from advdistill_core.config import TeacherConfig
from advdistill_core.teachers.protocol import Teacher


def precheck(config: TeacherConfig) -> None:
    """Find what is wrong with a teacher's settings, cheaply.

    Raises:
        InputError: the model cannot be used, or the endpoint's address or key is missing.
    """
    if config.backend == "openai":
        from advdistill_core.teachers import endpoint

        endpoint.precheck(config)
    else:
        models.check(config.model)


def model_identity(config: TeacherConfig) -> str:
    """A local model by its content; behind an endpoint only its name is known."""
    return f"endpoint:{config.model}" if config.backend == "openai" else models.identity(config.model)


def open_teacher(config: TeacherConfig) -> Teacher:
    """Load the model, or get ready to ask the endpoint.

    Raises:
        InputError: see `precheck`.
    """
    if config.backend == "openai":
        from advdistill_core.teachers.endpoint import Endpoint

        return Endpoint(config)
    from advdistill_core.teachers.local import Engine

    model = models.load_model(config.model, config.dtype, config.device, config.trust_remote_code)
    return Engine(model, models.load_tokenizer(config.model, config.trust_remote_code), config.batch_size)
