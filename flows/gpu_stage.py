"""The flow `stage`: one stage that loads a model, as a run of its own on the GPU pool."""

from typing import Any, Literal

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from advdistill_core.child import run_in_child
from advdistill_core.config import DistillConfig
from advdistill_core.errors import AdvDistillError
from advdistill_core.stages import STAGES
from advdistill_core.store import ArtifactRef
from flows import keys
from flows.tied import end_with_owner
from tasks.placement import other_version
from tasks.progress import Reporter

_TIMEOUT_S = 7 * 24 * 3600


@flow(name="stage", timeout_seconds=_TIMEOUT_S, persist_result=False)
def gpu_stage(
    stage: Literal["generate", "train", "evaluate"],
    config: DistillConfig,
    inputs: dict[str, ArtifactRef],
    params: dict[str, Any],
) -> State[Any]:
    """Run one stage; other flows start this one, people rarely do.

    Args:
        stage: the stage.
        config: the run's configuration.
        inputs: references to the stage's inputs, by name.
        params: the stage's variant.
    """
    end_with_owner()
    if told := other_version(flow_run.tags):
        get_run_logger().warning(told)
    keys.fetch(config.teacher)
    try:
        ref = run_in_child(STAGES[stage], config, inputs, params, Reporter(stage))
    except AdvDistillError as error:  # its name tells the parent whether a retry can help
        return Failed(name=type(error).__name__, message=str(error))
    rows = f"{ref.rows} rows in " if ref.rows else ""  # a student has none
    return Completed(message=f"{ref.outcome}: {rows}{ref.uri}")
