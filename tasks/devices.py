"""Which stages of a run take a slot of the GPU pool. Without Prefect, since command lines ask too."""

from advdistill_core.config import DistillConfig
from advdistill_core.stages import GENERATE, TRAIN, Stage


def takes_gpu(stage: Stage, config: DistillConfig) -> bool:
    """Whether a stage of a run on pools belongs on the GPU pool.

    One that loads a model does, unless its device is the CPU. A teacher behind an endpoint
    computes elsewhere; but several workers share a generation on that pool, whoever computes.
    """
    if not stage.own_process or config.placement != "pools":
        return False
    if stage.name == TRAIN.name:
        return config.student.device != "cpu"
    if stage.name != GENERATE.name:
        return config.evaluation.device != "cpu"
    teacher = config.teacher
    backends = {teacher.backend, *(further.backend for further in teacher.mixture)}
    on_gpu = "vllm" in backends or ("transformers" in backends and teacher.device != "cpu")
    return on_gpu or teacher.workers > 1
