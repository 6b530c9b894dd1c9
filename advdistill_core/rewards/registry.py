"""The verifiers by task name: the built-in ones and those of installed packages."""

from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from advdistill_core.config import PolicyConfig
from advdistill_core.errors import InputError
from advdistill_core.rewards.verifiers.base import Verifier

GROUP = "advdistill.verifiers"
_HERE = "advdistill_core.rewards.verifiers"
BUILT_IN = {
    "math": f"{_HERE}.math:MathVerifier",
    "choice": f"{_HERE}.choice:ChoiceVerifier",
    "exact": f"{_HERE}.exact:ExactVerifier",
    "numeric": f"{_HERE}.numeric:NumericVerifier",
    "regex": f"{_HERE}.regex:RegexVerifier",
    "json": f"{_HERE}.json:JsonVerifier",
    "reasoning_gym": f"{_HERE}.reasoning_gym:ReasoningGymVerifier",
    "python": f"{_HERE}.python:PythonVerifier",
}


def names() -> list[str]:
    """All tasks that can be verified, sorted."""
    return sorted({*BUILT_IN, *_installed()})


def make(task: str, policy: PolicyConfig) -> Verifier:
    """The verifier of a task.

    Raises:
        InputError: there is none of that name, or an installed one cannot be loaded.
    """
    if task in BUILT_IN:
        module, _, name = BUILT_IN[task].partition(":")
        found = getattr(import_module(module), name)
    elif task in _installed():
        point = _installed()[task]
        try:
            found = point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"verifier {task}", f"{point.value} ({error})", "an importable class", "Mend its entry point."
            ) from error
    else:
        raise InputError("task", task, f"one of {', '.join(names())}", "Name a verifier that is installed.")
    if not (isinstance(found, type) and issubclass(found, Verifier)):
        raise InputError(f"verifier {task}", repr(found), "a subclass of Verifier", "Mend its entry point.")
    return found(policy)


def versions(task: str | None = None) -> dict[str, str]:
    """Name and version of the packages whose verifiers could decide a verdict.

    Args:
        task: the only one that occurs; None where that is not known.
    """
    return {
        name: f"{p.dist.name}=={p.dist.version}" if p.dist else p.value
        for name, p in _installed().items()
        if task in (None, name)
    }


@lru_cache(maxsize=1)
def _installed() -> dict[str, EntryPoint]:
    """Verifiers of installed packages; a built-in name cannot be taken over."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}
