"""From a YAML file and overrides to a configuration, or one line that says what is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from advdistill_core.config import DistillConfig
from advdistill_core.config.explaining import explain
from advdistill_core.errors import InputError

_EXAMPLE = "Begin with a shipped recipe; they are in flows/recipes."
_FIELDS = "Fields are section.field, e.g. teacher.k."
_SHELL = set("'\"`$\\!")  # what a shell reads otherwise inside the quotes of the advice


class _Loader(yaml.SafeLoader):
    """YAML in which a name that occurs twice is an error: the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated name, naming its line."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{name} a second time in line {line}; it may occur once")
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file.

    Raises:
        InputError: the file is missing, no YAML, or no mapping.
    """
    what = f"recipe {path.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            "recipe", str(path), "a file that exists", "`advdistill recipes` lists the shipped ones."
        ) from error
    except IsADirectoryError as error:
        raise InputError("recipe", str(path), "a file, not a folder", "Name the YAML file in it.") from error
    except OSError as error:
        raise InputError("recipe", str(path), "a file that can be read", f"{error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(what, str(error), "a text in UTF-8", "Save it as UTF-8.") from error
    try:
        document = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        problem = str(error).replace(' in "<unicode string>",', "")
        raise InputError(what, " ".join(problem.split()), "valid YAML", "Mend that line.") from error
    if not isinstance(document, dict):
        got = "nothing" if document is None else f"a {type(document).__name__}"
        raise InputError(what, got, "a mapping of sections, e.g. prompts and teacher", _EXAMPLE)
    return {str(name): value for name, value in document.items()}


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
                raise InputError(
                    "--set", override, f"a section before the last dot, {key} is a value", _FIELDS
                )
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


def _override_value(override: str, text: str) -> Any:
    if text[:1] not in ("[", "{", '"', "'") and text not in ("null", "~"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        name = override.partition("=")[0].strip()
        plain = len(text) < 100 and not _SHELL & set(text)  # the line may be pasted into a shell
        quoted = f""", as in --set "{name}='{text}'\"""" if plain else ""
        remedy = f"Close it; if it is a text, put it in quotes{quoted}."
        raise InputError("--set", override, "a value, or a YAML list or mapping", remedy) from error


def _deep_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep_copy(item) for key, item in value.items()}
    return [_deep_copy(item) for item in value] if isinstance(value, list) else value
