"""What a run shows of itself in the Prefect UI: its stages as they go, figures, plots, addresses."""

import json
import logging
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from advdistill_core.store import ArtifactRef, Store
from advdistill_core.store.tables import decode
from flows import plots
from flows.run_record import RunRecord, headline_figures

_LOG = logging.getLogger(__name__)


class RunPage:
    """The artifacts of one run in the UI. A server that does not answer costs the display only."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._table: UUID | None = None

    def stages(self, label: str = "", outcome: str = "") -> None:
        """Bring the stage table up to date.

        Args:
            label: a stage that is not in the record, and what to say of it.
        """
        rows = [
            {
                "stage": name,
                "outcome": s.outcome,
                "rows": s.rows,
                "seconds": round(s.seconds, 1),
                "artifact": "/".join(s.uri.split("/")[-2:]),
            }
            for name, s in self.record.stages.items()
        ]
        if label:
            rows.append({"stage": label, "outcome": outcome, "rows": "", "seconds": "", "artifact": ""})
        _shown(lambda: self._show_table(rows))

    def _show_table(self, rows: list[dict[str, Any]]) -> None:
        if self._table is None:
            made = create_table_artifact(rows, key="stages", description=f"Stages of {self.record.name}")
            self._table = cast(UUID, made)
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(rows)))

    def result(self, metrics: dict[str, Any], student: ArtifactRef | None, store: Store) -> None:
        """Show the figures, the plots and where everything is."""
        rows = [{"figure": name, "value": v} for name, v in headline_figures(self.record.metrics).items()]
        if rows:
            _shown(lambda: create_table_artifact(rows, key="result", description="Figures of the run"))
        _show_image("plot-accuracy", "Right answers of teacher and student", plots.accuracies(metrics))
        if student:
            log = decode(store.open(student).file("train_log.parquet"), "train_log.parquet")
            loss = plots.loss(log["step"].to_pylist(), log["loss"].to_pylist())
            _show_image("plot-loss", "Training loss", loss)
        _shown(lambda: create_markdown_artifact(self._addresses(), key="report", description="The report"))

    def _addresses(self) -> str:
        """Browsers open no file from a page of a server, so addresses are there to be copied."""
        metrics, report = self.record.metrics, self.record.report
        lines = [str(metrics["headline"]), ""] if "headline" in metrics else []
        if report:
            address = report if "://" in report else f"file://{report}"
            lines += [f"**Report**: `{address}`", ""]  # a block of code is pale and cut at the right
            if "://" not in report:  # a browser follows no link from a server's page to a file
                lines += ["Copy that into the address line, or write `advdistill report latest`.", ""]
        lines += ["| stage | artifact |", "|---|---|"]
        lines += [f"| {label} | `{s.uri}` |" for label, s in self.record.stages.items()]
        return "\n".join(lines)


def _show_image(key: str, description: str, address: str | None) -> None:
    if address:
        _shown(lambda: create_image_artifact(image_url=address, key=key, description=description))


def _shown(show: Callable[[], object]) -> None:
    try:
        show()
    except (httpx.HTTPError, PrefectException) as error:
        _LOG.warning("not shown in the UI: %s", error)
