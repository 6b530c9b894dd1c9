"""Runs a flow's tasks one after the other and keeps the run's record up to date."""

import contextlib
import inspect
import time
from collections.abc import Iterator
from typing import Any, Literal

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import deployment, flow_run
from prefect.tasks import exponential_backoff
from pydantic import ValidationError

from advdistill_core.config import DistillConfig
from advdistill_core.errors import BudgetError, ContaminationError, ErrorRateError, InputError
from advdistill_core.progress import Event
from advdistill_core.stages import STAGES, plan_stage
from advdistill_core.store import ArtifactRef, Store
from flows import alive
from flows.run_record import BEFORE, FOLDER, TEACHER, RunRecord, StageRecord, UnderWay, figures
from flows.showing import RunPage
from flows.tied import end_with_owner
from tasks.cache import result_folder, split_arguments
from tasks.progress import display

FromStage = Literal["first missing", "load", "generate", "verify", "weigh", "train", "evaluate", "publish"]
_ORDER = list(STAGES)
_POOL_RETRIES = 2
_RETRY_FACTOR_S = 10
_RETRY_JITTER = 0.5
_NOTE_EVERY_S = 5.0


class RunRecorder:
    """Runs tasks one after the other and keeps the run's record up to date.

    Args:
        from_stage: make this stage's artifacts and those of what follows anew, once in the
            life of the run: a retry of the run keeps what the first attempt made.
    """

    def __init__(self, config: DistillConfig, from_stage: FromStage = "first missing") -> None:
        self.config = config
        self.from_stage = from_stage
        end_with_owner()
        _check_root(config.storage.root)
        self.store = Store(config.storage.root, config.storage.deep_verify)
        run_id = flow_run.id or "local"
        self.record = RunRecord(
            run_id=run_id,
            name=config.name,
            run_name=flow_run.name,
            state="running",
            started_at=time.time(),
            remade=self._remade_before(run_id),
            config=config.model_dump(mode="json"),
        )
        self._held = alive.hold(self.store, run_id)  # as long as this process lives
        self.page = RunPage(self.record)
        self._trained: ArtifactRef | None = None
        self._save()

    def step(
        self,
        task: Task[..., ArtifactRef],
        *args: Any,
        label: str = "",
        config: DistillConfig | None = None,
        **kwargs: Any,
    ) -> ArtifactRef:
        """Run a stage's task and note how it went.

        Args:
            label: name of the step in the record; the task's name without one.
            config: used for this step in place of the run's.
        """
        began = time.monotonic()
        label, config = label or task.name, config or self.config
        self.store.files.check_root()  # the stage's own process cannot tell a root from its mount point
        self._drop_if_asked(task, label, config, args, kwargs)
        self.page.stages(label, "running")
        try:
            with self._under_way(label):
                state = self._configured(task)(config, *args, return_state=True, **kwargs)
                ref: ArtifactRef = state.result()
        except BaseException as error:
            self.fail(label, error)
            if isinstance(error, Exception):  # who was asked to end waits for no server
                self.page.stages(label, "failed")
            raise
        self.record.stages[label] = StageRecord(
            stage=task.name,
            outcome="cached" if state.name == "Cached" else ref.outcome,
            rows=ref.rows,
            seconds=round(time.monotonic() - began, 3),
            uri=ref.uri,
        )
        self.record.under_way = None
        self._save()
        self._trained = ref if task.name == "train" else self._trained
        return ref

    def fail(self, label: str, error: BaseException) -> None:
        """Note that the run ended early, in which step, and why."""
        self.record.state, self.record.ended_in, self.record.under_way = "interrupted", label, None
        if isinstance(error, Exception):
            self.record.state, self.record.error = "failed", f"{type(error).__name__}: {error}"
        self.record.seconds = time.time() - self.record.started_at
        self._save()

    def finish(
        self, report: ArtifactRef | None = None, metrics: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Note the result and show it in the Prefect UI."""
        self.record.state, self.record.metrics = "completed", figures(metrics or {})
        self.record.report = f"{report.uri}/report.html" if report else None
        self.record.seconds = time.time() - self.record.started_at
        self._save()
        self.page.stages()
        self.page.result(metrics or {}, self._trained, self.store)
        return self.record.model_dump(mode="json", exclude={"config", "remade", "under_way"})

    @contextlib.contextmanager
    def _under_way(self, label: str) -> Iterator[None]:
        """Keep in the record which step the run is at, and how far that is, for `status`.

        A stage is never disturbed by this: what cannot be written is not shown, and a remote
        root, which may make a writer wait, is told of the step alone.
        """
        at = self.record.under_way = UnderWay(label=label, started_at=time.time())
        with contextlib.suppress(OSError):
            self._save()
        show, noted_at = display.get(), 0.0

        def note(event: Event) -> None:
            nonlocal noted_at
            show(event)
            now = time.monotonic()
            if now - noted_at < _NOTE_EVERY_S or not self.store.files.is_local:
                return
            noted_at = now
            at.progress = f"{event.done} of {event.total} {event.unit}" if event.total else event.message
            with contextlib.suppress(OSError):
                self._save()

        token = display.set(note)
        try:
            yield
        finally:
            display.reset(token)

    def _configured(self, task: Task[..., ArtifactRef]) -> Task[..., ArtifactRef]:
        """The task with its records beside the artifacts and, on pools, with retries."""
        options: dict[str, Any] = {}
        folder = result_folder(self.config)
        if folder:
            options["result_storage"] = folder
        if self.config.storage.deep_verify:
            # A record is believed on sizes and stamps; the stage compares checksums itself.
            options["refresh_cache"] = True
        if self.config.placement == "pools":
            options |= {
                "retries": _POOL_RETRIES,
                "retry_delay_seconds": exponential_backoff(_RETRY_FACTOR_S),
                "retry_jitter_factor": _RETRY_JITTER,
                "retry_condition_fn": _may_help,
            }
        return task.with_options(**options)

    def _drop_if_asked(
        self,
        task: Task[..., ArtifactRef],
        label: str,
        config: DistillConfig,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Remove the step's artifact if `from_stage` says so and this run did not make it."""
        if not _is_after(self.from_stage, task.name, label) or label in self.record.remade:
            return
        arguments = inspect.signature(task.fn).bind(config, *args, **kwargs).arguments
        refs, params = split_arguments(arguments)
        plan = plan_stage(STAGES[task.name], config, refs, self.store, params)
        with self.store.lock(task.name, plan.fingerprint):
            self.store.files.remove(f"{task.name}/{plan.fingerprint}")
        self.record.remade.append(label)
        self._save()

    def _remade_before(self, run_id: str) -> list[str]:
        """What an earlier attempt of this run made anew."""
        try:
            body = self.store.files.read(f"{FOLDER}/{run_id}.json")
            return RunRecord.model_validate_json(body).remade
        except (FileNotFoundError, ValidationError):
            return []

    def _save(self) -> None:
        body = self.record.model_dump_json(indent=1).encode()
        self.store.files.write(f"{FOLDER}/{self.record.run_id}.json", body)


def _is_after(from_stage: FromStage, stage: str, label: str) -> bool:
    """Whether a step is `from_stage` or follows it."""
    if from_stage == "first missing":
        return False
    if label.startswith((BEFORE, TEACHER)):
        return from_stage in ("load", "evaluate")
    return _ORDER.index(stage) >= _ORDER.index(from_stage)


def _may_help(task: Task[..., Any], run: TaskRun, state: State) -> bool:
    """Whether running a failed task again may end differently."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, InputError | BudgetError | ContaminationError | ErrorRateError):
        return False
    return not getattr(error, "final", False)


def _check_root(root: str) -> None:
    """A worker runs flows in a temporary folder, where a relative root would be lost."""
    if deployment.id and not root.startswith("/") and "://" not in root:
        raise InputError(
            "storage.root", root, "an absolute folder or a URI such as s3://bucket/prefix", "Give it in full."
        )
