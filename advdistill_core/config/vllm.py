"""The vLLM server that a teacher is run with."""

from typing import Literal

from advdistill_core.config.base import Section, setting


class VllmConfig(Section):
    """How `vllm serve` is started; read when `teacher.backend` is vllm."""

    python: str = setting(
        "",
        "Python",
        "Interpreter of the environment that vLLM is in, e.g. /opt/vllm/bin/python. Empty: what "
        "ADVDISTILL_VLLM_PYTHON names, else the one that runs the stage.",
        affects_result=False,
    )
    platform: Literal["auto", "gpu", "cpu"] = setting(
        "auto",
        "Platform",
        "What the installed build runs on; auto asks it. The CPU build computes in float32 unless "
        "teacher.dtype says otherwise, and has one seed for the engine instead of one per request.",
        affects_result=False,
    )
    tensor_parallel: int = setting(
        1, "Tensor parallel", "GPUs that share one copy of the model.", affects_result=False, ge=1, le=1024
    )
    data_parallel: int = setting(
        1,
        "Data parallel",
        "Copies of the model, each on GPUs of its own.",
        affects_result=False,
        ge=1,
        le=1024,
    )
    gpu_memory_utilization: float = setting(
        0.9, "GPU memory", "Share (0 to 1) of each GPU's memory to use.", affects_result=False, gt=0, le=1
    )
    cpu_cache_gib: float = setting(
        2.0, "CPU cache", "CPU build: GiB of memory for keys and values.", affects_result=False, gt=0, le=4096
    )
    prefix_caching: bool = setting(
        True, "Prefix caching", "Keep the keys and values of prompts that begin alike.", affects_result=False
    )
    max_model_len: int = setting(
        0, "Max length", "Longest prompt and response together, in tokens; 0 for what the model allows.", ge=0
    )
    quantization: str = setting(
        "", "Quantization", "Form of the weights, e.g. awq, gptq, fp8; empty for what the model states."
    )
    lora: str = setting(
        "",
        "LoRA adapter",
        "Folder of an adapter for the model; empty for none.",
        affects_result=False,  # its content counts, see teachers.backends.model_identity
    )
    start_timeout_s: float = setting(
        900.0, "Start limit", "Seconds the server may take to start.", affects_result=False, gt=0, le=86400
    )
    max_restarts: int = setting(
        5, "Restarts", "How often a server that died is started again.", affects_result=False, ge=0, le=1000
    )
    extra_arguments: tuple[str, ...] = setting(
        (), "Further arguments", "Passed to `vllm serve` as they are, e.g. --max-num-seqs=64."
    )
