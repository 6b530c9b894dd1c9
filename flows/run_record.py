"""What a run leaves to be found again: its stages, artifacts and figures."""

from typing import Any

from pydantic import BaseModel, ValidationError

from advdistill_core.errors import InputError
from advdistill_core.store import Store

FOLDER = "runs"


class StageRecord(BaseModel):
    """One stage of a run."""

    stage: str
    outcome: str
    rows: int
    seconds: float
    uri: str


class RunRecord(BaseModel):
    """A run, as `advdistill run --json` prints it and `status` lists it."""

    run_id: str
    name: str
    state: str
    started_at: float
    seconds: float = 0.0
    stages: dict[str, StageRecord] = {}
    metrics: dict[str, Any] = {}
    report: str | None = None
    error: str | None = None
    remade: list[str] = []
    config: dict[str, Any] = {}


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without lists (matching rows and the like), which stay in `metrics.json`."""
    nested = {k: figures(v) for k, v in metrics.items() if isinstance(v, dict)}
    return {k: nested.get(k, v) for k, v in metrics.items() if not isinstance(v, list)}


def headline_figures(metrics: dict[str, Any]) -> dict[str, str]:
    """The few figures that people look at first, as text."""
    plain = plain_figures(metrics)
    return {name: f"{v:.4g}" if isinstance(v, float) else str(v) for name, v in plain.items()}


def plain_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures that are one value each."""
    return {name: v for name, v in metrics.items() if isinstance(v, (bool, int, float, str))}


def read_runs(root: str, strict: bool = False) -> list[RunRecord]:
    """All records under a root, newest first.

    Args:
        strict: whether a record that cannot be read is an error; else it is left out.

    Raises:
        InputError: naming the record.
    """
    files = Store(root).files
    found = []
    for name in files.names(FOLDER):
        try:
            found.append(RunRecord.model_validate_json(files.read(f"{FOLDER}/{name}")))
        except ValidationError as error:
            if strict:
                raise InputError(
                    f"{root}/{FOLDER}/{name}", "a record of another form", "one of this version", "Remove it."
                ) from error
    return sorted(found, key=lambda run: run.started_at, reverse=True)
