"""What every task does: run its stage where it belongs."""

from typing import Any

from advdistill_core.child import run_in_child
from advdistill_core.config import DistillConfig
from advdistill_core.stages import Stage, run_stage
from advdistill_core.store import ArtifactRef, Store
from tasks.cache import split_arguments
from tasks.devices import takes_gpu
from tasks.progress import Reporter


def perform(stage: Stage, config: DistillConfig, **arguments: Any) -> ArtifactRef:
    """Run a stage in this process; one that loads a model in a child or on the GPU pool.

    Args:
        arguments: the stage's input references and variant parameters, by name.
    """
    refs, params = split_arguments(arguments)
    progress = Reporter(stage.name)
    if takes_gpu(stage, config):
        from tasks.placement import run_on_pool

        return run_on_pool(stage, config, refs, params, progress)
    if stage.own_process:
        return run_in_child(stage, config, refs, params, progress)
    store = Store(config.storage.root, config.storage.deep_verify)
    return run_stage(stage, config, refs, store, params, progress)
