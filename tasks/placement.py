"""A stage on the GPU pool: a deployment's run, followed as if it ran here.

The run's idempotency key is the artifact that it makes. So a parent that was killed and
retried finds the run that it had started, and two parents that want the same artifact
share one run, on whichever machines they are.
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import ArtifactFilter
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import ArtifactSort, LogSort
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, State

from advdistill_core import __version__, errors
from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.stages import GENERATE, Stage, plan_stage
from advdistill_core.store import ArtifactRef, Store
from tasks.progress import Reporter

#: The deployment that runs one stage on the GPU pool.
DEPLOYMENT = "stage/gpu"

_VERSION_TAG = "advdistill "
_POLL_S = 2.0
# A worker that lives reports a killed process a second time some seconds after the first; a
# retry set in between would be overwritten, and one set while the process of a failed run is
# still ending makes a worker with `--limit` die.
_SETTLE_S = 10.0
_NO_WORKER = "stage %s waits for a worker of its pool: none is free, or none runs"
_PATIENCE_S = 30.0  # a free worker takes a run within ten or twenty
_MAX_CRASHES = 5
_MAX_SUBMISSIONS = 100


class PoolStageError(StageError):
    """A stage failed on the pool; `final` if trying again cannot help."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def run_on_pool(
    stage: Stage,
    config: DistillConfig,
    inputs: Mapping[str, ArtifactRef],
    params: Mapping[str, Any],
    progress: Reporter,
) -> ArtifactRef:
    """Run a stage on the GPU pool and wait for it.

    A run that crashed (its worker or machine died) is started again, up to five times.
    When this run is cancelled, the pool's run is cancelled too. A stage whose work can be
    shared gets as many runs as the configuration says; whichever of them are left make the
    artifact.

    Raises:
        PoolStageError: the stage failed there, or its run was cancelled by hand.
        InputError: the deployment does not exist.
    """
    store = Store(config.storage.root, config.storage.deep_verify)
    fingerprint = plan_stage(stage, config, inputs, store, params).fingerprint
    found = store.find(stage.name, fingerprint)
    if found:
        return found
    root = hashlib.sha256(store.files.uri.encode()).hexdigest()[:12]
    parameters = {
        "stage": stage.name,
        "config": config.model_dump(mode="json"),
        "inputs": {name: ref.model_dump(mode="json") for name, ref in inputs.items()},
        "params": dict(params),
    }
    shares = config.teacher.workers if stage.name == GENERATE.name else 1
    if shares > 1 and not store.files.is_local:
        raise InputError(
            "teacher.workers", shares, "1 with a remote root", "Workers share shards in a shared folder only."
        )

    def is_made() -> bool:
        return shares > 1 and store.find(stage.name, fingerprint) is not None

    with get_client(sync_client=True) as client:
        # An artifact that was made and removed since needs a run with a key of its own.
        for number in range(_MAX_SUBMISSIONS):
            key = f"{stage.name}-{fingerprint}-{root}-{number}"
            child = _Child(client, key, parameters, progress, is_made)
            with _helpers(client, key, parameters, progress, shares - 1):
                child.complete()
            made = store.find(stage.name, fingerprint)
            if made:
                return _as_made(store, made, child.waited)
    raise PoolStageError(f"stage {stage.name}: its runs complete and leave no artifact in {store.files.uri}.")


def _as_made(store: Store, ref: ArtifactRef, waited: bool) -> ArtifactRef:
    """The reference with the outcome that the pool's run had."""
    manifest = store.manifest(ref.stage, ref.fingerprint)
    if manifest is None or not waited:
        return ref
    return ref.model_copy(update={"outcome": manifest.outcome, "seconds": manifest.seconds})


@contextmanager
def _helpers(
    client: SyncPrefectClient, key: str, parameters: dict[str, Any], progress: Reporter, count: int
) -> Iterator[None]:
    """Further runs that take a share of the work; they end by themselves when it is done.

    One that crashed is not started again: the others do its part. One that found no worker
    in time is not needed any more.
    """
    helpers = [_Child(client, f"{key}-share-{i}", parameters, progress) for i in range(count)]
    try:
        yield
    except BaseException:
        for helper in helpers:
            helper.cancel_with_parent()
        raise
    for helper in helpers:
        run = client.read_flow_run(helper.run.id)
        if helper.ours and run.state and run.state.is_scheduled():
            client.set_flow_run_state(run.id, Cancelled(message="the others have done its part"))


class _Child:
    """The pool's run of a stage, from submission to its end.

    Args:
        is_made: whether the artifact is there, whoever made it; the run is then left alone.
    """

    def __init__(
        self,
        client: SyncPrefectClient,
        key: str,
        parameters: dict[str, Any],
        progress: Reporter,
        is_made: Callable[[], bool] = lambda: False,
    ) -> None:
        self.client, self.progress, self.is_made = client, progress, is_made
        self.stage = parameters["stage"]
        self.logger = get_run_logger()
        self.run = _submit(key, parameters)
        self.ours = _is_ours(client, self.run)
        self.waited = False
        self._logs_seen = 0

    def complete(self) -> None:
        """Wait until the run has completed, starting it again where that is right."""
        state = self.run.state
        if state and state.is_final() and not state.is_completed():
            while new := self._new_logs():  # whose lines were passed on then
                self._logs_seen += len(new)
            self._again("left by an earlier attempt")
        crashes = 0
        while True:
            state = self._follow()
            if state.is_completed() or self.is_made():
                return
            if state.is_crashed() and crashes < _MAX_CRASHES:
                crashes += 1
                self._again(f"crashed: {state.message}")
            elif state.is_cancelled() and not self.ours:
                self._again("cancelled with the run that had asked for it")
            else:
                raise self._failure(state)

    def _follow(self) -> State:
        """Wait for a final state, passing logs and progress on."""
        patient_until = time.monotonic() + _PATIENCE_S
        try:
            while True:
                run = self.client.read_flow_run(self.run.id)
                self._pass_on()
                if run.state and run.state.is_scheduled() and time.monotonic() > patient_until:
                    patient_until = float("inf")  # said once
                    self.logger.warning(_NO_WORKER, self.stage)
                if run.state and run.state.is_final():
                    return run.state
                self.waited = True
                if self.is_made():
                    return Completed()
                time.sleep(_POLL_S)
        except BaseException:
            self.cancel_with_parent()
            raise

    def _again(self, why: str) -> None:
        time.sleep(_SETTLE_S + random.random() * _POLL_S)
        run = self.client.read_flow_run(self.run.id)
        if run.state and run.state.is_final() and not run.state.is_completed():
            self.logger.warning("Stage %s on the pool: %s; trying again.", self.stage, why)
            self.client.set_flow_run_state(self.run.id, AwaitingRetry(), force=True)

    def _failure(self, state: State) -> PoolStageError:
        name = state.name or state.type.value
        final = name in {k.__name__ for k in (InputError, errors.BudgetError, errors.ErrorRateError)}
        text = f"stage {self.stage} on the pool (flow run {self.run.name}): {name}: {state.message}"
        return PoolStageError(text, final or state.is_cancelled())

    def _pass_on(self) -> None:
        """Copy new log lines and the latest progress of the pool's run to this one."""
        logs = self._new_logs()
        self._logs_seen += len(logs)
        for line in logs:
            self.logger.log(line.level, "%s | %s", self.run.name, line.message)
        latest = self.client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[self.run.id]),
                type=ArtifactFilterType(any_=["progress"]),
            ),
            sort=ArtifactSort.UPDATED_DESC,
            limit=1,
        )
        if latest and isinstance(latest[0].data, int | float):
            self.progress.show(float(latest[0].data), latest[0].description or self.stage)

    def _new_logs(self) -> list[Log]:
        return self.client.read_logs(
            LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.run.id])),
            limit=200,
            offset=self._logs_seen,
            sort=LogSort.TIMESTAMP_ASC,
        )

    def cancel_with_parent(self) -> None:
        """If this run is being cancelled, cancel the pool's run that it asked for."""
        context = FlowRunContext.get()
        if not (self.ours and context and context.flow_run):
            return
        parent = self.client.read_flow_run(context.flow_run.id)
        if parent.state and (parent.state.is_cancelling() or parent.state.is_cancelled()):
            run = self.client.read_flow_run(self.run.id)
            if run.state and not run.state.is_final():
                self.client.set_flow_run_state(self.run.id, Cancelling(message="its parent was cancelled"))


def _submit(key: str, parameters: dict[str, Any]) -> FlowRun:
    """The run of a key, started unless it exists."""
    try:
        run = run_deployment(
            DEPLOYMENT,
            parameters=parameters,
            idempotency_key=key,
            timeout=0,
            flow_run_name=f"{parameters['stage']}-{parameters['config']['name']}",
            tags=[f"{_VERSION_TAG}{__version__}"],
        )
        return cast(FlowRun, run)  # a coroutine only inside an event loop
    except ObjectNotFound as error:
        raise InputError(
            "placement",
            "pools",
            f"a deployment {DEPLOYMENT} on the Prefect server",
            "Run `advdistill deploy`.",
        ) from error


def other_version(tags: Sequence[str]) -> str:
    """What to say, if anything, of a stage that another version of this package asked for.

    A tag tells it rather than a parameter, which workers of other versions would refuse.

    Args:
        tags: of the stage's run.
    """
    asked = [tag.removeprefix(_VERSION_TAG) for tag in tags if tag.startswith(_VERSION_TAG)]
    if not asked or __version__ in asked:
        return ""
    return (
        f"This worker has advdistill {__version__}, the run that asked for this stage {asked[0]}: what they "
        "make may differ. Install one version on all machines."
    )


def _is_ours(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether the current flow run started a run, rather than found it."""
    context = FlowRunContext.get()
    if run.parent_task_run_id is None or context is None or context.flow_run is None:
        return True
    parent: UUID | None = client.read_task_run(run.parent_task_run_id).flow_run_id
    return parent == context.flow_run.id
