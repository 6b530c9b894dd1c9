"""Where questions come from and how they are put to a model."""

from typing import Any, Literal

from pydantic import model_validator

from advdistill_core.config.base import Section, setting
from advdistill_core.errors import InputError


class Family(Section):
    """One reasoning-gym family and the share of the questions that it gives."""

    name: str = setting("chain_sum", "Family", "Name of a reasoning-gym dataset, e.g. chain_sum.")
    weight: int = setting(1, "Weight", "Share of the questions, relative to the other families.", ge=1)
    params: dict[str, Any] = setting(dict, "Parameters", "Arguments of the family, e.g. min_terms.")


# Settings that only one source reads. A value for a source that is not chosen would be
# ignored in silence, so it is refused.
_READ_BY = {
    "families": "reasoning_gym",
    "path": "file",
    "dataset": "datasets",
    "dataset_config": "datasets",
    "dataset_split": "datasets",
    "id_column": "file or datasets",
    "choices_column": "file or datasets",
    "question_column": "file or datasets",
    "answer_column": "file or datasets",
}


class PromptSource(Section):
    """A set of questions with reference answers."""

    source: Literal["reasoning_gym", "file", "datasets"] = setting(
        "reasoning_gym",
        "Source",
        "reasoning_gym generates questions; file reads JSONL, Parquet or CSV; datasets reads a Hub "
        "name or a folder with the datasets library.",
    )
    families: list[Family] = setting(
        list, "Families", "reasoning_gym: the families to mix; empty means chain_sum."
    )
    path: str | None = setting(None, "Path", "file: a .jsonl, .parquet or .csv file.")
    dataset: str | None = setting(None, "Dataset", "datasets: a Hub name or a folder.")
    dataset_config: str | None = setting(None, "Dataset configuration", "datasets: its configuration name.")
    dataset_split: str = setting("train", "Dataset split", "datasets: the split to read.")
    question_column: str = setting("question", "Question column", "Column that holds the question.")
    answer_column: str = setting("answer", "Answer column", "Column that holds the reference answer.")
    id_column: str | None = setting(
        None, "Id column", "Column that names a question; without one, a hash of its content does."
    )
    choices_column: str | None = setting(
        None, "Choices column", "Column with the list of options of multiple-choice questions."
    )
    task: str = setting("math", "Task", "Name of the verifier that grades the answers, e.g. math or choice.")
    system: str = setting("", "System prompt", "System message before every question; empty for none.")
    instruction: str = setting(
        "{question}",
        "Instruction",
        "Template of the user message; {question} and {choices} are replaced.",
    )
    seed: int = setting(0, "Seed", "Decides which questions are drawn and how they are split.", ge=0)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "PromptSource":
        for name, readers in _READ_BY.items():
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if self.source not in readers and getattr(self, name) != default:
                raise ValueError(
                    f"{name} would be ignored: source is {self.source}, {name} is read by {readers}"
                )
        if self.source == "file" and not self.path:
            raise ValueError("path is missing: source file needs the path of a .jsonl, .parquet or .csv file")
        if self.source == "datasets" and not self.dataset:
            raise ValueError("dataset is missing: source datasets needs a Hub name or a folder")
        if "{question}" not in self.instruction:
            raise InputError(
                "instruction", self.instruction, "a template that contains {question}", "Say where it goes."
            )
        return self


class PromptsConfig(PromptSource):
    """The training questions and the held-out questions of the same source."""

    num_train: int = setting(256, "Training prompts", "Distinct questions to distil from.", ge=1)
    num_heldout: int = setting(
        200, "Held-out prompts", "Distinct questions kept for evaluation; none is in training.", ge=0
    )
