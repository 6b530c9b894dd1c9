"""`DistillConfig`: the one configuration of a distillation.

It imports neither torch nor Prefect, so that reading it costs milliseconds. Its JSON
schema is the form of the Prefect UI: no unions of models, no callables.
"""

from typing import Literal

from advdistill_core.config.base import Section, setting
from advdistill_core.config.evaluation import EvaluationConfig, EvaluationSet, HarnessConfig
from advdistill_core.config.prompts import Family, PromptsConfig, PromptSource
from advdistill_core.config.redistill import RedistillConfig
from advdistill_core.config.rewards import PolicyConfig, RewardsConfig
from advdistill_core.config.student import StudentConfig
from advdistill_core.config.teacher import TeacherConfig
from advdistill_core.config.weighting import WeightingConfig


class StorageConfig(Section):
    """Where artifacts live."""

    root: str = setting(
        "advdistill-store",
        "Root",
        "Folder or fsspec URI (s3://...) of the artifacts.",
        affects_result=False,
        min_length=1,
    )
    hub_dataset: str = setting(
        "",
        "Data set on the Hub",
        "Repository OWNER/NAME that the tables are pushed to with their card; empty for none.",
        affects_result=False,
        pattern=r"^$|^[\w.-]+/[\w.-]+$",
    )
    hub_model: str = setting(
        "",
        "Model on the Hub",
        "Repository OWNER/NAME that the student is pushed to with its card; empty for none.",
        affects_result=False,
        pattern=r"^$|^[\w.-]+/[\w.-]+$",
    )
    hub_private: bool = setting(
        True, "Private", "Make new repositories on the Hub private.", affects_result=False
    )
    deep_verify: bool = setting(
        False,
        "Verify checksums",
        "Compare sha256, not only sizes, before an artifact is reused.",
        affects_result=False,
    )


class DistillConfig(Section):
    """Everything one distillation needs, from the questions to the report."""

    name: str = setting(
        "distill", "Name", "Name of the run, for people.", affects_result=False, pattern=r"^[\w.-]{1,80}$"
    )
    prompts: PromptsConfig = setting(PromptsConfig, "Prompts", "The questions.")
    teacher: TeacherConfig = setting(TeacherConfig, "Teacher", "Who writes the responses.")
    rewards: RewardsConfig = setting(RewardsConfig, "Rewards", "How responses are graded.")
    weighting: WeightingConfig = setting(WeightingConfig, "Weighting", "How rewards become weights.")
    student: StudentConfig = setting(StudentConfig, "Student", "Who learns.")
    evaluation: EvaluationConfig = setting(EvaluationConfig, "Evaluation", "How models are measured.")
    storage: StorageConfig = setting(StorageConfig, "Storage", "Where the tables and the student are kept.")
    placement: Literal["local", "pools"] = setting(
        "local",
        "Placement",
        "local: all stages as processes of this run; pools: those that load a model on the gpu work pool, "
        "unless their device is cpu.",
        affects_result=False,
    )


__all__ = [
    "DistillConfig",
    "EvaluationConfig",
    "EvaluationSet",
    "Family",
    "HarnessConfig",
    "PolicyConfig",
    "PromptSource",
    "PromptsConfig",
    "RedistillConfig",
    "RewardsConfig",
    "Section",
    "StorageConfig",
    "StudentConfig",
    "TeacherConfig",
    "WeightingConfig",
    "setting",
]
