"""How models are measured."""

from advdistill_core.config.base import Section, setting
from advdistill_core.config.teacher import DType


class EvaluationConfig(Section):
    """Sampling and statistics of the evaluation."""

    max_new_tokens: int = setting(256, "Max new tokens", "Longest answer, in tokens.", ge=1)
    num_samples: int = setting(
        1, "Samples per question", "1 with temperature 0 is greedy; more give pass@k.", ge=1, le=1024
    )
    temperature: float = setting(0.0, "Temperature", "Sampling temperature; 0 is greedy.", ge=0, le=5)
    top_p: float = setting(1.0, "Top p", "Nucleus sampling: smallest set with this probability.", gt=0, le=1)
    seed: int = setting(0, "Seed", "Seed of the sampling.", ge=0)
    confidence: float = setting(0.95, "Confidence", "Level of the intervals (0 to 1).", gt=0.5, lt=1)
    dtype: DType = setting("auto", "Data type", "Number type of the weights; auto: float32 on CPU.")
    device: str = setting(
        "auto",
        "Device",
        "auto, cpu, cuda or cuda:N.",
        affects_result=False,
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
    batch_size: int = setting(
        64, "Batch size", "Responses generated at once.", affects_result=False, ge=1, le=65536
    )
    shard_size: int = setting(
        32, "Shard size", "Questions per shard: what a kill can lose.", affects_result=False, ge=1
    )
