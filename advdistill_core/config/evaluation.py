"""How models are measured, and on which questions."""

from typing import Any, Literal

from pydantic import model_validator

from advdistill_core.config.base import Section, device_setting, setting
from advdistill_core.config.prompts import PromptSource
from advdistill_core.config.teacher import DType


class EvaluationSet(PromptSource):
    """A set of questions beside the held-out ones, from a source of its own."""

    name: str = setting(
        "other",
        "Name",
        "What the set is called in tables; not heldout, which is the part of the prompts kept back.",
        pattern=r"^[\w.-]{1,60}$",
    )
    num_questions: int = setting(200, "Questions", "Distinct questions of the set.", ge=1)

    @model_validator(mode="after")
    def _name_is_free(self) -> "EvaluationSet":
        if self.name == "heldout":
            raise ValueError("name must not be heldout: so the questions kept back from training are called")
        return self


class HarnessConfig(Section):
    """Standard tasks by lm-evaluation-harness (advdistill[lm-eval]), beside our own evaluation."""

    tasks: list[str] = setting(list, "Tasks", "Names of its tasks, e.g. arc_easy; empty for none.")
    include_path: str = setting("", "Own tasks", "Folder with task files of your own; empty for none.")
    num_fewshot: int = setting(
        -1, "Examples", "Worked examples before each question; -1 as the task says.", ge=-1, le=100
    )
    limit: int = setting(0, "Questions", "So many questions of every task; 0 for all.", ge=0)
    chat_template: bool = setting(True, "Chat template", "Put questions in the model's chat template.")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "HarnessConfig":
        for name, field in type(self).model_fields.items():
            if name != "tasks" and not self.tasks and getattr(self, name) != field.default:
                raise ValueError(f"{name} would be ignored: there are no tasks")
        return self


# Fields of the evaluation that decide an answer; the others choose what is asked or shown.
_SAMPLING = ("max_new_tokens", "num_samples", "temperature", "top_p", "seed", "confidence", "dtype")


class EvaluationConfig(Section):
    """Questions, sampling and statistics of the evaluation."""

    max_new_tokens: int = setting(256, "Max new tokens", "Longest answer, in tokens.", ge=1)
    num_samples: int = setting(
        1, "Samples per question", "1 with temperature 0 is greedy; more give pass@k.", ge=1, le=1024
    )
    temperature: float = setting(0.0, "Temperature", "Sampling temperature; 0 is greedy.", ge=0, le=5)
    top_p: float = setting(1.0, "Top p", "Nucleus sampling: smallest set with this probability.", gt=0, le=1)
    seed: int = setting(0, "Seed", "Seed of the sampling.", ge=0)
    confidence: float = setting(0.95, "Confidence", "Level of the intervals (0 to 1).", gt=0.5, lt=1)
    dtype: DType = setting("auto", "Data type", "Number type of the weights; auto: float32 on CPU.")
    device: str = device_setting()
    batch_size: int = setting(
        64, "Batch size", "Responses generated at once.", affects_result=False, ge=1, le=65536
    )
    shard_size: int = setting(
        32, "Shard size", "Questions per shard: what a kill can lose.", affects_result=False, ge=1
    )
    sets: list[EvaluationSet] = setting(
        list, "Further sets", "Questions of other sources, such as harder or differently worded ones."
    )
    more_samples: int = setting(
        0,
        "Further samples",
        "Every set is also answered so many times by sampling, for pass@k and maj@k; 0 for not at all.",
        ge=0,
        le=1024,
    )
    more_temperature: float = setting(
        0.8, "Their temperature", "Sampling temperature of the further samples.", gt=0, le=5
    )
    contamination: Literal["warn", "drop", "fail"] = setting(
        "warn",
        "Contamination",
        "Training prompts and responses that repeat an evaluation question: warn keeps and reports them, "
        "drop leaves them out, fail stops the run.",
    )
    harness: HarnessConfig = setting(
        HarnessConfig, "Standard tasks", "What lm-evaluation-harness runs on the student before and after."
    )
    likelihoods: int = setting(
        0,
        "Likelihoods",
        "So many of the teacher's right and wrong responses are looked at with the student before and "
        "after: how likely does it find them; 0 for none.",
        ge=0,
    )
    second_opinions: int = setting(
        200,
        "Second opinions",
        "So many of the teacher's responses are also graded by an independent grader for the report; "
        "0 for none.",
        ge=0,
    )
    teacher: bool = setting(
        False, "Teacher too", "Measure the teacher on every set, to see the student relative to it."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationConfig":
        names = [chosen.name for chosen in self.sets]
        if len(set(names)) != len(names):
            raise ValueError(f"sets must have different names, got {', '.join(names)}")
        default = type(self).model_fields["more_temperature"].default
        if not self.more_samples and self.more_temperature != default:
            raise ValueError("more_temperature would be ignored: it is read with more_samples above 0")
        return self

    def sampling(self, more: bool = False) -> dict[str, Any]:
        """What decides the answers to a question, in canonical JSON types.

        Args:
            more: of the further samples.
        """
        found = {name: getattr(self, name) for name in _SAMPLING}
        return found | (
            {"num_samples": self.more_samples, "temperature": self.more_temperature} if more else {}
        )

    def for_samples(self) -> "EvaluationConfig":
        """The same evaluation with the further samples in place of the ordinary ones."""
        return self.model_copy(update=self.sampling(more=True))

    def chosen_set(self, name: str) -> EvaluationSet:
        """A set by name."""
        return next(chosen for chosen in self.sets if chosen.name == name)
