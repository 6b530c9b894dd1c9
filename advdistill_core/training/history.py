"""What the history of a training says: its log, its best step, whether it should go on."""

from typing import Any

from advdistill_core.config.student import EarlyStoppingConfig
from advdistill_core.training.batching import Schedule

ACCURACY, LOSS = "heldout_accuracy", "heldout_loss"
CHOSEN = "chosen_log_prob"  # of the right responses, per token, where the guard let it pass
REFUSED = "chosen_log_prob_refused"  # and where it did not

History = list[dict[str, Any]]


def evaluations(history: History, config: EarlyStoppingConfig) -> list[tuple[int, float]]:
    """Step and value of each evaluation; larger is better."""
    name, sign = (ACCURACY, 1) if config.metric == "accuracy" else (LOSS, -1)
    return [(entry["step"], sign * entry[name]) for entry in history if name in entry]


def best_step(history: History, config: EarlyStoppingConfig) -> int | None:
    """The first step with the best value; None before the first evaluation."""
    found = evaluations(history, config)
    return max(found, key=lambda e: (e[1], -e[0]))[0] if found else None


def out_of_patience(history: History, config: EarlyStoppingConfig) -> bool:
    """Whether `patience` evaluations have come since the best."""
    best = best_step(history, config)
    since = sum(step > best for step, _ in evaluations(history, config)) if best is not None else 0
    return 0 < config.patience <= since


def last_passed(history: History) -> int | None:
    """The last step that the guard let pass."""
    return max((entry["step"] for entry in history if CHOSEN in entry), default=None)


def train_log(history: History, schedule: Schedule, stage: int = 1, before: int = 0) -> list[dict[str, Any]]:
    """The log of every optimizer step, also of those before a resumption.

    Args:
        stage: 1, or 2 for the one with wrong responses.
        before: steps of the stages before.
    """
    looks: dict[int, dict[str, float]] = {}
    for entry in history:
        names = {ACCURACY: ACCURACY, LOSS: LOSS, CHOSEN: CHOSEN, REFUSED: CHOSEN}
        found = {column: entry[name] for name, column in names.items() if name in entry}
        looks.setdefault(entry["step"], {}).update(found)
    return [
        {
            "step": before + entry["step"],
            "stage": stage,
            "loss": entry["loss"],
            "learning_rate": entry["learning_rate"],
            "grad_norm": entry["grad_norm"],
            "completion_tokens": schedule.completion_tokens_of(entry["step"] - 1),
            **looks[entry["step"]],
        }
        for entry in history
        if "loss" in entry
    ]
