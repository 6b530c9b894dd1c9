"""Questions from reasoning-gym families, mixed by weight, none twice.

A family's item i is drawn from `Random(seed + i)`, so two draws whose seeds are closer
than their sizes share items; seeds here are a milliard apart.
"""

import difflib
from collections.abc import Iterator, Sequence
from importlib.metadata import version as package_version
from typing import Any

from advdistill_core.config import Family, PromptSource
from advdistill_core.errors import InputError
from advdistill_core.prompts.types import Question, content_id

_SEED_STEP = 1_000_000_000
_FAMILIES_PER_SEED = 1_000
_MAX_DRAWS_PER_QUESTION = 50
_MIN_DRAWS = 5_000
_SOON_DRAWN = 5_000  # questions; more are left to the stage
_TRAIN, _KEPT_BACK = ("num_train",), ("num_heldout", "num_questions")


def version() -> str:
    """The library's version: another may generate other questions."""
    return package_version("reasoning-gym")


def chosen(config: PromptSource) -> list[Family]:
    """The configured families, or the default one."""
    return list(config.families) or [Family()]


def shares(families: Sequence[Family], count: int) -> list[int]:
    """How many of `count` questions each family gives (largest remainders)."""
    total = sum(family.weight for family in families)
    exact = [count * family.weight / total for family in families]
    given = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (given[i] - exact[i], i))
    for i in by_remainder[: count - sum(given)]:
        given[i] += 1
    return given


def draw(family: Family, place: int, seed: int, wanted: int, taken: set[str]) -> list[Question]:
    """Draw distinct questions of a family.

    Args:
        place: the family's position in the list; it keeps the seeds apart.
        wanted: how many.
        taken: normalised questions that must not occur; the drawn ones are added.

    Raises:
        InputError: the family is unknown, its parameters are wrong, or it has too few
            distinct questions.
    """
    found: list[Question] = []
    limit = max(_MIN_DRAWS, _MAX_DRAWS_PER_QUESTION * wanted)
    for question in _items(family, (seed * _FAMILIES_PER_SEED + place) * _SEED_STEP, limit):
        if len(found) == wanted:
            break
        if question.normalised in taken:
            continue
        taken.add(question.normalised)
        found.append(question)
    if len(found) < wanted:
        raise InputError(
            f"prompts.families.{place}",
            f"{len(found)} distinct questions of {family.name} in {limit} draws",
            f"{wanted}",
            "Widen its params, or lower its weight, prompts.num_train or prompts.num_heldout.",
        )
    return found


def split(config: PromptSource) -> tuple[list[Question], list[Question]]:
    """Questions to train on and to keep back, a share of both from each family, in its order.

    Raises:
        InputError: see `draw`.
    """
    mix = chosen(config)
    counts = [sum(getattr(config, name, 0) for name in names) for names in (_TRAIN, _KEPT_BACK)]
    taken: set[str] = set()
    train: list[Question] = []
    heldout: list[Question] = []
    for place, (family, n_train, n_heldout) in enumerate(
        zip(mix, *(shares(mix, count) for count in counts), strict=True)
    ):
        drawn = draw(family, place, config.seed, n_train + n_heldout, taken)
        heldout += drawn[:n_heldout]
        train += drawn[n_heldout:]
    return train, heldout


def precheck(config: PromptSource) -> None:
    """Refuse unknown families and parameters, and too few distinct questions where they are soon drawn.

    About a second, for the library's import, and as long as it takes to draw the questions.

    Raises:
        InputError: naming the family.
    """
    for family in chosen(config):
        _dataset(family, 0, 1)
    if sum(getattr(config, name, 0) for name in (*_TRAIN, *_KEPT_BACK)) <= _SOON_DRAWN:
        split(config)


def _dataset(family: Family, seed: int, size: int) -> Any:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if family.name not in DATASETS:
        near = difflib.get_close_matches(family.name, DATASETS, n=1)
        hint = f"Did you mean {near[0]}?" if near else "See reasoning_gym.factory.DATASETS."
        raise InputError("prompts.families", family.name, "a reasoning-gym family", hint)
    try:
        return reasoning_gym.create_dataset(family.name, seed=seed, size=size, **family.params)
    except (AssertionError, TypeError, ValueError) as error:
        what = f"prompts.families, params of {family.name}"
        raise InputError(what, str(family.params), "parameters of the family", f"{error}.") from error


def _items(family: Family, seed: int, size: int) -> Iterator[Question]:
    dataset = _dataset(family, seed, size)
    for i in range(size):
        item = dataset[i]
        if item["answer"] is None:
            raise InputError("prompts.families", family.name, "a family with one reference answer")
        text, answer = str(item["question"]), str(item["answer"])
        if answer.strip():
            yield Question(content_id(text, answer), text, answer, (), f"reasoning_gym/{family.name}")
