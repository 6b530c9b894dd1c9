"""Runs a flow's tasks one after the other and keeps the run's record up to date."""

import time
from typing import Any

from prefect import Task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.runtime import flow_run

from advdistill_core.config import DistillConfig
from advdistill_core.store import ArtifactRef, Store
from flows.run_record import FOLDER, RunRecord, StageRecord, headline_figures
from tasks.cache import result_folder


class RunRecorder:
    """Runs tasks one after the other and keeps the run's record up to date."""

    def __init__(self, config: DistillConfig) -> None:
        self.config = config
        self.store = Store(config.storage.root, config.storage.deep_verify)
        self.record = RunRecord(
            run_id=flow_run.id or "local",
            name=config.name,
            state="running",
            started_at=time.time(),
            config=config.model_dump(mode="json"),
        )
        self._save()

    def step(self, task: Task[..., ArtifactRef], *args: Any, label: str = "", **kwargs: Any) -> ArtifactRef:
        """Run a stage's task and note how it went."""
        began = time.monotonic()
        folder = result_folder(self.config)
        configured = task.with_options(result_storage=folder) if folder else task
        state = configured(self.config, *args, return_state=True, **kwargs)
        try:
            ref = state.result()
        except BaseException as error:
            self.fail(error)
            raise
        outcome = "cached" if state.name == "Cached" else ref.outcome
        self.record.stages[label or task.name] = StageRecord(
            stage=task.name,
            outcome=outcome,
            rows=ref.rows,
            seconds=round(time.monotonic() - began, 3),
            uri=ref.uri,
        )
        self._save()
        return ref

    def fail(self, error: BaseException) -> None:
        """Note that the run ended early."""
        self.record.state, self.record.error = "failed", f"{type(error).__name__}: {error}"
        self.record.seconds = time.time() - self.record.started_at
        self._save()

    def finish(self, report: ArtifactRef, metrics: dict[str, Any]) -> dict[str, Any]:
        """Note the result and show it in the Prefect UI."""
        self.record.state, self.record.metrics = "completed", metrics
        self.record.report = f"{report.uri}/report.html"
        self.record.seconds = time.time() - self.record.started_at
        self._save()
        stages = self.record.stages.items()
        table = [{"stage": label, **s.model_dump(exclude={"stage"})} for label, s in stages]
        create_table_artifact(table=table, key="stages", description=f"Stages of {self.config.name}")
        headline = [{"figure": name, "value": value} for name, value in headline_figures(metrics).items()]
        create_table_artifact(table=headline, key="result", description=f"Result of {self.config.name}")
        create_link_artifact(link=self.record.report, key="report", description="The report")
        return self.record.model_dump(mode="json", exclude={"config"})

    def _save(self) -> None:
        body = self.record.model_dump_json(indent=1).encode()
        self.store.files.write(f"{FOLDER}/{self.record.run_id}.json", body)
