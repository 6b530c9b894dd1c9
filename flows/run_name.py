"""Names of runs in the UI: the recipe's, unless somebody typed one."""

import re
from collections.abc import Callable
from typing import Any

from coolname.data import config  # what Prefect's server draws its names from
from prefect.runtime import flow_run

_WORDS: dict[str, Any] = config
_ADJECTIVES = ("adjective", "adjective_near", "noun_adjective", "prefix", "size")
_ANIMALS = ("animal", "animal_breed", "animal_legendary")
#: What the form of Prefect's UI offers: one of these, a hyphen and an animal of six letters.
_OF_THE_FORM = re.compile(
    "(Awesome|Rustic|Small|Gorgeous|Fantastic|Sleek|Intelligent|Unbranded|Refined|Licensed|Generic"
    "|Practical|Ergonomic|Handcrafted|Tasty|Handmade|Incredible)-[^-]{1,6}"
)


def named(template: str) -> Callable[[], str]:
    """Name a run by its parameters, for `flow_run_name`; a name that a person gave stays.

    Args:
        template: with parameters in braces, as Prefect's own templates.
    """

    def name() -> str:
        given = flow_run.name
        return given if given and not is_generated(given) else template.format(**flow_run.parameters)

    return name


def is_generated(name: str) -> bool:
    """Whether Prefect made a name up: its server or its UI's form."""
    if _OF_THE_FORM.fullmatch(name):
        return True
    adjective, _, animal = name.partition("-")
    return _among(adjective, _ADJECTIVES) and _among(animal, _ANIMALS)


def _among(word: str, lists: tuple[str, ...]) -> bool:
    return any(word in _WORDS[name]["words"] for name in lists)
