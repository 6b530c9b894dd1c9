"""A run that was cancelled in the UI says so in its record."""

from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from pydantic import ValidationError

from advdistill_core.config import StorageConfig
from advdistill_core.store import Store
from flows.run_record import FOLDER, RunRecord


def note_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Call a run's record cancelled; for `on_cancellation`.

    The run itself is ended by a signal and cannot tell who sent it. The worker calls this when
    its process is gone.
    """
    storage = flow_run.parameters.get("config", {}).get("storage", {})
    files = Store(storage.get("root", StorageConfig().root)).files
    name = f"{FOLDER}/{flow_run.id}.json"
    try:
        record = RunRecord.model_validate_json(files.read(name))
    except (FileNotFoundError, ValidationError):  # it had not begun
        return
    if record.state not in ("running", "interrupted"):
        return
    if record.under_way is not None:
        record.ended_in, record.under_way = record.under_way.label, None
    record.state = "cancelled"
    files.write(name, record.model_dump_json(indent=1).encode())
