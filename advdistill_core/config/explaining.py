"""Pydantic's problems with a configuration as one line in the project's form."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from advdistill_core.errors import InputError

# What the field wants, by the kind of pydantic's problem; the rest is told in its words.
_EXPECTED = {
    "int_parsing": "an integer",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list, such as [a, b]",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "a mapping, such as {name: value}",
    "model_type": "a section of settings",
    "model_attributes_type": "a section of settings",
    "missing": "a value",
    "string_too_short": "a text that is not empty",
}
_SHOWN = 5  # further wrong fields that are named
_FIRST_WORD = re.compile(r"(\w+)\b")


def explain(error: ValidationError, model: type[BaseModel]) -> InputError:
    """Turn pydantic's list of problems into one line about the first.

    Args:
        model: what was validated, to know its fields.
    """
    problems = error.errors()
    found = _explained(problems[0], model)
    others = list(dict.fromkeys(_place(problem) for problem in problems[1:]))
    if not others:
        return found
    shown = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    return InputError(found.what, found.got, found.expected, f"{found.remedy} Wrong too: {shown}.")


def _place(problem: Any) -> str:
    """The field of a problem; one between fields names its section."""
    where = ".".join(str(part) for part in problem["loc"])
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause.what if cause.what.startswith(where) else f"{where}.{cause.what}"
    return where or "the recipe"


def _explained(problem: Any, model: type[BaseModel]) -> InputError:
    location, kind, given = problem["loc"], problem["type"], problem["input"]
    where = ".".join(str(part) for part in location)
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        inside = f"{where}." if where and not cause.what.startswith(where) else ""
        return InputError(inside + cause.what, cause.got, cause.expected, cause.remedy)
    if kind == "extra_forbidden":
        name, known = str(location[-1]), list(_model_at(model, location[:-1]).model_fields)
        elsewhere = _sections_with(name, model)
        hint = f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else _near(name, known)
        return InputError(where, "an unknown field", "a field of the configuration", hint)
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error" and isinstance(given, dict):
        return _combination(where, message, given, _model_at(model, location))
    return InputError(where, _shown(given), _rule(kind, message, problem), _remedy(model, problem))


def _combination(where: str, message: str, given: dict[str, Any], section: type[BaseModel]) -> InputError:
    """A problem between the fields of a section, whose message begins with the name of one."""
    first = _FIRST_WORD.match(message)
    if first and first[1] in section.model_fields:
        name = f"{where}.{first[1]}".lstrip(".")
        got = _shown(given[first[1]]) if first[1] in given else "its default"
        return InputError(name, got, "a value that goes with the other settings", f"{message}.")
    return InputError(where or "the recipe", "these settings", "settings that go together", f"{message}.")


def _rule(kind: str, message: str, problem: Any) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "string_pattern_mismatch":
        return f"a text that matches the pattern {problem['ctx']['pattern']}"
    if kind == "literal_error":
        return str(problem["ctx"]["expected"])
    message = message.removeprefix("Input should be ")
    return f"a value {message}" if message.startswith(("greater", "less")) else _lower_first(message)


def _remedy(model: type[BaseModel], problem: Any) -> str:
    """What the field is for, or the value that was probably meant."""
    location, kind, given = problem["loc"], problem["type"], problem["input"]
    if kind in ("model_type", "model_attributes_type"):
        name = ".".join(str(part) for part in location)
        known = ", ".join(list(_model_at(model, location).model_fields)[:3])
        return f"Set its fields, e.g. {name}.{known.split(', ')[0]} (there are {known}, ...)."
    if kind == "literal_error" and isinstance(given, str):
        choices = re.findall(r"'([^']*)'", str(problem["ctx"]["expected"]))
        near = difflib.get_close_matches(given, choices, n=1)
        if near:
            return f"Did you mean {near[0]}?"
    field = _field_at(model, location)
    about = f"{field.title}: {field.description}" if field and field.description else ""
    return f"Put it in quotes. {about}" if kind == "string_type" and given is not None else about


def _sections_with(name: str, model: type[BaseModel]) -> list[str]:
    """Where a field of that very name is, beside the place at which it is unknown."""
    return [
        f"{section}.{name}"
        for section in model.model_fields
        if (inner := _model_at(model, [section])) is not model and name in inner.model_fields
    ]


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."


def _shown(given: Any) -> Any:
    """A value as it stands in the recipe."""
    if given is None:
        return "null"
    if isinstance(given, bool):
        return str(given).lower()
    return given if isinstance(given, str | int | float | list | dict) else str(given)


def _field_at(model: type[BaseModel], location: Sequence[str | int]) -> FieldInfo | None:
    """The innermost field of a place; numbers count into lists."""
    names = [part for part in location if isinstance(part, str)]
    if not names:
        return None
    return _model_at(model, names[:-1]).model_fields.get(names[-1])


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    """The section at a place, also inside a list."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation: Any = model.model_fields[part].annotation if part in model.model_fields else None
        candidates = [annotation, *get_args(annotation)]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return model
        model = models[0]
    return model


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
