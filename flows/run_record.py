"""What a run leaves to be found again: its stages, artifacts and figures."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from advdistill_core.errors import InputError
from advdistill_core.report.wording import number, percent, points
from advdistill_core.store import Store
from flows import alive

FOLDER = "runs"

#: What people look at first: how it is called and written. Other figures keep their names.
_TITLES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "headline": ("in a sentence", str),
    "accuracy_before": ("student before, right answers", percent),
    "accuracy_after": ("student after, right answers", percent),
    "difference": ("difference, points", points),
    "difference_low": ("difference, lower end of the interval", points),
    "difference_high": ("difference, upper end of the interval", points),
    "num_questions": ("held-out questions", number),
    "num_left_out": ("held-out questions left out, not graded before or after", number),
    "teacher_pass_rate": ("teacher, right answers", percent),
    "num_prompts": ("training questions", number),
    "mixed_groups": ("training questions with right and wrong responses", number),
    "weight_on_correct_frac": ("training weight on correct responses", percent),
    "effective_sample_size": ("equally weighted responses that a question counts as", number),
    "nothing_to_train": ("why nothing was trained", str),
}
#: Labels of steps that need the questions and a model that is there already.
BEFORE, TEACHER = "evaluate before", "evaluate teacher"


class StageRecord(BaseModel):
    """One stage of a run."""

    stage: str
    outcome: str
    rows: int
    seconds: float
    uri: str


class UnderWay(BaseModel):
    """The step that a run is at.

    Args:
        started_at: seconds since 1970.
        progress: how far it was a few seconds ago, such as `34 of 64 responses`; empty where
            nobody tells (a stage on a pool, a remote root).
    """

    label: str
    started_at: float
    progress: str = ""


class RunRecord(BaseModel):
    """A run, as `advdistill run --json` prints it and `status` lists it.

    Args:
        name: the recipe's.
        run_name: the run's own, as the UI shows it; None in older records.
        state: running, completed, failed, interrupted or cancelled.
        seconds: how long it ran; None while it runs, and of one that was killed, since nobody
            knows when.
        ended_in: the step in which it ended early.
        under_way: the step that it is at; None unless it runs.
    """

    run_id: str
    name: str
    run_name: str | None = None
    state: str
    started_at: float
    seconds: float | None = None
    stages: dict[str, StageRecord] = {}
    metrics: dict[str, Any] = {}
    report: str | None = None
    error: str | None = None
    ended_in: str | None = None
    under_way: UnderWay | None = None
    remade: list[str] = []
    config: dict[str, Any] = {}


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without lists (matching rows and the like), which stay in `metrics.json`."""
    nested = {k: figures(v) for k, v in metrics.items() if isinstance(v, dict)}
    return {k: nested.get(k, v) for k, v in metrics.items() if not isinstance(v, list)}


def headline_figures(metrics: dict[str, Any]) -> dict[str, str]:
    """The figures that are one value each, with titles and units, the most asked for first."""
    plain = {name: v for name, v in metrics.items() if isinstance(v, (bool, int, float, str))}
    first = {title: write(plain.pop(name)) for name, (title, write) in _TITLES.items() if name in plain}
    return first | {name.replace("_", " "): _written(value) for name, value in plain.items()}


def _written(value: Any) -> str:
    return str(value) if isinstance(value, bool | str) else number(value)


def read_runs(root: str, strict: bool = False) -> list[RunRecord]:
    """All records under a root, newest first.

    Args:
        strict: whether a record that cannot be read is an error; else it is left out.

    Raises:
        InputError: naming the record.
    """
    store = Store(root)
    files = store.files
    found = []
    for name in files.names(FOLDER):
        try:
            run = RunRecord.model_validate_json(files.read(f"{FOLDER}/{name}"))
            if run.state == "running" and alive.is_gone(store, run.run_id):
                run.state = "interrupted"  # killed, so that it could not say so
                if run.under_way is not None:
                    run.ended_in, run.under_way = run.under_way.label, None
            if run.state == "running" or (run.state == "interrupted" and not run.seconds):
                run.seconds = None  # records of before have 0
            found.append(run)
        except ValidationError as error:
            if strict:
                raise InputError(
                    f"{root}/{FOLDER}/{name}", "a record of another form", "one of this version", "Remove it."
                ) from error
    return sorted(found, key=lambda run: run.started_at, reverse=True)
