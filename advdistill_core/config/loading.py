"""From a YAML file and overrides to a configuration, or one line that says what is wrong."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file.

    Raises:
        InputError: the file is missing, no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("recipe", str(path), "a readable YAML file", str(error)) from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"recipe {path.name}", problem, "valid YAML") from error
    if not isinstance(document, dict):
        raise InputError(
            f"recipe {path.name}", type(document).__name__, "a mapping of sections, e.g. prompts and teacher"
        )
    return document


def apply_overrides(document: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `section.field=value` overrides to a recipe.

    Values stay text, which the fields' types convert; lists, mappings, null and quoted
    strings are read as YAML.

    Raises:
        InputError: an override is not of that form.
    """
    result = _deep_copy(document)
    for override in overrides:
        name, equals, text = override.partition("=")
        keys = name.strip().split(".")
        if not equals or not all(keys):
            raise InputError("--set", override, "section.field=value", "For example --set teacher.k=4.")
        target = result
        for key in keys[:-1]:
            child = target.setdefault(key, {})
            if not isinstance(child, dict):
                raise InputError("--set", override, f"a section before the last dot, {key} is a value")
            target = child
        target[keys[-1]] = _override_value(override, text.strip())
    return result


def build_config(document: Mapping[str, Any]) -> DistillConfig:
    """Validate a recipe.

    Raises:
        InputError: naming the first field that is wrong.
    """
    try:
        return DistillConfig.model_validate(dict(document))
    except ValidationError as error:
        raise explain(error, DistillConfig) from error


def explain(error: ValidationError, model: type[BaseModel]) -> InputError:
    """Turn pydantic's list of problems into one line about the first."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        prefix = f"{where}." if where and not cause.what.startswith(where) else ""
        return InputError(prefix + cause.what, cause.got, cause.expected, cause.remedy)
    more = len(error.errors()) - 1
    remedy = f"{more} more field(s) are wrong too." if more else ""
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."
        return InputError(where, "an unknown field", "a field of the configuration", hint)
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):
        return InputError(where, "a combination that cannot work", message, remedy)
    message = message.removeprefix("Input should be ")
    return InputError(where, problem["input"], message[:1].lower() + message[1:], remedy)


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    for part in location:
        if isinstance(part, int):
            continue
        annotation: Any = model.model_fields[part].annotation if part in model.model_fields else None
        candidates = [annotation, *get_args(annotation)]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _override_value(override: str, text: str) -> Any:
    if text[:1] not in ("[", "{", '"', "'") and text not in ("null", "~"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError("--set", override, "a value, or a YAML list or mapping") from error


def _deep_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep_copy(item) for key, item in value.items()}
    return [_deep_copy(item) for item in value] if isinstance(value, list) else value
