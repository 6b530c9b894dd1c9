"""How a stage tells how far it is: one function that takes small events."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """A step of progress.

    `done` and `total` count `unit`s (responses, prompts, steps). `tokens` is the running
    count of tokens generated or trained on; `figures` holds what else is worth showing,
    such as the loss.
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    done: int
    total: int
    unit: str
    tokens: int = 0
    figures: dict[str, float] = {}
    message: str = ""


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Show nothing."""
