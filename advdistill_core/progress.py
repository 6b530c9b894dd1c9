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

    def told(self) -> list[str]:
        """The figures for people: a rate as "13.8 tokens/s", others as "loss 2.156"; not the time left."""
        return [
            f"{_number(value)} {name}" if "/" in name else f"{name.replace('_', ' ')} {_number(value)}"
            for name, value in self.figures.items()
            if name != SECONDS_LEFT
        ]


#: The figure that is shown in a place of its own.
SECONDS_LEFT = "eta_s"

Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Show nothing."""


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"
