"""How much GPU memory and time a recipe will take, by arithmetic: the figures in its description.

These are derived, not measured. Decoding is bound by reading the weights and the keys and
values once per step; training by its operations. `advdistill estimate` measures a probe on
the machine at hand instead.
"""

from dataclasses import dataclass

from advdistill_core.config import DistillConfig

_GIB = 1 << 30
_CONTEXT_BYTES = 1.5 * _GIB  # CUDA, kernels, fragments
_QUESTION_TOKENS = 200
_MEAN_OF_MAX = 1 / 3  # a typical response's share of the longest allowed
_SERVED_FRAC = 0.5  # of the roofline that a vLLM server reaches
_TRAINED_FRAC = 0.3  # of the peak operations that training reaches
_LAYER_S = 1e-3  # one layer of one eager decoding step in transformers
_SAMPLES_AT_ONCE = 256


@dataclass(frozen=True)
class Shape:
    """What of a model decides memory and time; from its configuration on the Hub."""

    parameters: float
    num_layers: int
    hidden: int
    intermediate: int
    kv_values: int  # key heads times head size

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one token in bfloat16."""
        return 2 * 2 * self.num_layers * self.kv_values

    @property
    def activation_bytes(self) -> int:
        """What the backward pass needs of one token: 8 hidden and 4 MLP vectors a layer in
        bfloat16, 4 hidden ones in float32."""
        return self.num_layers * (2 * (8 * self.hidden + 4 * self.intermediate) + 4 * 4 * self.hidden)


SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(0.494e9, 24, 896, 4864, 128),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(1.544e9, 28, 1536, 8960, 256),
    "Qwen/Qwen2.5-3B-Instruct": Shape(3.086e9, 36, 2048, 11008, 256),
    "Qwen/Qwen2.5-7B-Instruct": Shape(7.616e9, 28, 3584, 18944, 512),
}


@dataclass(frozen=True)
class Gpu:
    """A class of GPUs: memory in GiB, bytes and bfloat16 operations a second."""

    name: str
    memory_gib: float
    bandwidth: float
    flops: float


SMALL = Gpu("24 GB", 24, 0.6e12, 125e12)  # A10
LARGE = Gpu("80 GB", 80, 2.0e12, 312e12)  # A100


@dataclass(frozen=True)
class Estimate:
    """Memory in GiB per GPU and hours; the teacher's are 0 where it runs elsewhere."""

    teacher_gib: float
    student_gib: float
    generate_h: float
    train_h: float
    evaluate_h: float

    @property
    def hours(self) -> float:
        return self.generate_h + self.train_h + self.evaluate_h

    def text(self, gpu: Gpu, num_gpus: int) -> str:
        """The sentence in a recipe's description."""
        where = f"{num_gpus} GPUs of {gpu.name}" if num_gpus > 1 else f"one GPU of {gpu.name}"
        teacher = f"teacher {self.teacher_gib:.0f} GiB, " if self.teacher_gib else ""
        return f"Estimate for {where}: {teacher}student {self.student_gib:.0f} GiB, {self.hours:.1f} hours."


def estimate(config: DistillConfig, gpu: Gpu) -> Estimate:
    """Estimate one run.

    Raises:
        KeyError: a model whose shape is not known here.
    """
    teacher_gib, generate_h = (0.0, 0.0) if config.teacher.backend == "openai" else _teacher(config, gpu)
    student = SHAPES[config.student.model]
    return Estimate(
        teacher_gib,
        _student_bytes(config, student) / _GIB,
        generate_h,
        _train_s(config, student, gpu) / 3600,
        _evaluate_s(config, student) / 3600,
    )


def _teacher(config: DistillConfig, gpu: Gpu) -> tuple[float, float]:
    """Least GiB per GPU, and hours, of the generation by vLLM."""
    teacher, shape, vllm = config.teacher, SHAPES[config.teacher.model], config.teacher.vllm
    weights = 2 * shape.parameters / vllm.tensor_parallel
    longest = _QUESTION_TOKENS + teacher.max_new_tokens
    mean = _QUESTION_TOKENS + teacher.max_new_tokens * _MEAN_OF_MAX
    room = vllm.gpu_memory_utilization * gpu.memory_gib * _GIB - weights - _CONTEXT_BYTES
    at_once = min(_SAMPLES_AT_ONCE, teacher.concurrency * teacher.k, room / (mean * shape.kv_bytes))
    step_s = (weights + at_once * mean * shape.kv_bytes) / gpu.bandwidth / _SERVED_FRAC
    tokens = config.prompts.num_train * teacher.k * teacher.max_new_tokens * _MEAN_OF_MAX
    seconds = tokens / at_once * step_s / vllm.data_parallel
    least = weights + longest * shape.kv_bytes * teacher.k + _CONTEXT_BYTES
    return least / _GIB, seconds / 3600


def _student_bytes(config: DistillConfig, shape: Shape) -> float:
    """Float32 weights, their bfloat16 copies and, where they are trained, gradients and two moments."""
    student = config.student
    if student.quantization == "nf4":
        weights = 0.6 * shape.parameters
    elif student.lora_rank:
        weights = 6 * shape.parameters
    else:
        weights = (4 + 2 + 4 + 8) * shape.parameters
        if student.sharding == "fsdp":
            weights /= student.num_processes
    kept = shape.activation_bytes
    if student.gradient_checkpointing:
        kept = kept // shape.num_layers + 4 * shape.hidden * shape.num_layers
    return weights + kept * student.batch_tokens + _CONTEXT_BYTES


def _train_s(config: DistillConfig, shape: Shape, gpu: Gpu) -> float:
    """Six operations a parameter and token, eight when activations are computed twice."""
    student, teacher = config.student, config.teacher
    response = teacher.max_new_tokens * _MEAN_OF_MAX
    tokens = config.prompts.num_train * (_QUESTION_TOKENS + teacher.k * response) * student.epochs
    operations = (8 if student.gradient_checkpointing else 6) * shape.parameters * tokens
    return operations / (gpu.flops * _TRAINED_FRAC) / student.num_processes


def _evaluate_s(config: DistillConfig, shape: Shape) -> float:
    """The student before and after, in process: steps of one layer after the other."""
    asked = config.evaluation
    questions = config.prompts.num_heldout + sum(one.num_questions for one in asked.sets)
    answers = 2 * questions * (asked.num_samples + asked.more_samples)
    steps = answers / asked.batch_size * asked.max_new_tokens * _MEAN_OF_MAX
    return steps * shape.num_layers * _LAYER_S
