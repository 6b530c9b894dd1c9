"""Every stage after the other, as the flows call them, up to one of them.

`python pipeline.py ROOT LABEL` is to a stage what `advdistill run` is to a flow: it finds what
is there, makes what is missing, says what is wrong in the words and with the exit code of the
command line, and prints last, as JSON, outcome, content hash and place of each artifact.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from advdistill_core import stages
from advdistill_core.child import run_in_child
from advdistill_core.config import DistillConfig
from advdistill_core.stages import Stage, run_stage
from advdistill_core.store import ArtifactRef, Store
from flows.cli import guarded

MODEL = "tiny-random-llama"


@dataclass(frozen=True)
class Step:
    """A call of a stage.

    Args:
        inputs: the step whose artifact each input is.
    """

    stage: Stage
    inputs: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)


_TABLES = {"prompts": "gate prompts", "responses": "gate responses", "rewards": "verify"}
STEPS = {
    "load": Step(stages.LOAD),
    "questions": Step(stages.QUESTIONS, params={"set": "other"}),
    "select": Step(stages.SELECT, {"prompts": "load"}),
    "gate prompts": Step(stages.GATE_PROMPTS, {"prompts": "load", "sets/other": "questions"}),
    "evaluate before": Step(stages.EVALUATE, {"prompts": "gate prompts"}, {"model": "student_before"}),
    "generate": Step(stages.GENERATE, {"prompts": "gate prompts"}),
    "gate responses": Step(
        stages.GATE_RESPONSES, {"prompts": "gate prompts", "responses": "generate", "sets/other": "questions"}
    ),
    "verify": Step(stages.VERIFY, {"prompts": "gate prompts", "responses": "gate responses"}),
    "weigh": Step(stages.WEIGH, {"responses": "gate responses", "rewards": "verify"}),
    "train": Step(
        stages.TRAIN, {"prompts": "gate prompts", "responses": "gate responses", "weights": "weigh"}
    ),
    "evaluate after": Step(
        stages.EVALUATE, {"prompts": "gate prompts", "student": "train"}, {"model": "student_after"}
    ),
    "likelihood": Step(stages.LIKELIHOOD, {**_TABLES, "student": "train"}, {"model": "student_after"}),
    "harness": Step(stages.HARNESS, {"student": "train"}, {"model": "student_after"}),
    "publish": Step(
        stages.PUBLISH,
        {
            **_TABLES,
            "weights": "weigh",
            "student": "train",
            "scores_before": "evaluate before",
            "scores_after": "evaluate after",
            "loaded": "load",
            "generated": "generate",
        },
    ),
    "push": Step(stages.PUSH, {**_TABLES, "report": "publish", "weights": "weigh", "student": "train"}),
    "compare": Step(
        stages.COMPARE,
        {
            f"{kind}/{arm}{place}": step
            for arm in ("sft-all", "rft")
            for kind, place, step in (
                ("weights", "", "weigh"),
                ("students", "/0", "train"),
                ("scores", "/0/heldout", "evaluate after"),
            )
        },
        {"reference": "sft-all"},
    ),
}


def configured(root: str, deep: bool = False) -> DistillConfig:
    """Small, and with several shards, steps and checkpoints, so that a fault falls between them."""
    model = {"model": MODEL, "device": "cpu"}
    return DistillConfig.model_validate(
        {
            "name": "faults",
            "prompts": {"num_train": 12, "num_heldout": 6},
            "teacher": {**model, "k": 4, "max_new_tokens": 8, "shard_size": 3, "temperature": 1.5},
            "student": {
                **model,
                "learning_rate": 1e-3,
                "groups_per_step": 3,
                "epochs": 2,
                "checkpoint_every_steps": 2,
            },
            "weighting": {"all_wrong": "uniform"},
            "evaluation": {
                "max_new_tokens": 8,
                "shard_size": 2,
                "second_opinions": 0,
                "likelihoods": 4,
                "device": "cpu",
                "sets": [{"name": "other", "seed": 7, "num_questions": 6}],
                "harness": {"tasks": ["stand_in"]},
            },
            "storage": {"root": root, "hub_dataset": "me/data", "deep_verify": deep},
        }
    )


def run_to(root: str, label: str, deep: bool = False, here: bool = False) -> dict[str, ArtifactRef]:
    """Run the steps up to one of them.

    Args:
        here: all of them in this process, also those that load a model.
    """
    config, refs = configured(root, deep), dict[str, ArtifactRef]()
    for name, step in STEPS.items():
        inputs = {key: refs[source] for key, source in step.inputs.items()}
        store = Store(root, config.storage.deep_verify)
        if name == "push":
            pretend_hub()
        if step.stage.own_process and not here:
            refs[name] = run_in_child(step.stage, config, inputs, step.params)
        else:
            refs[name] = run_stage(step.stage, config, inputs, store, step.params)
        if name == label:
            break
    return refs


def as_told(made: Mapping[str, ArtifactRef]) -> dict[str, list[str]]:
    """Outcome, content hash and place of each step's artifact."""
    return {n: [ref.outcome, ref.content_hash, f"{ref.stage}/{ref.fingerprint}"] for n, ref in made.items()}


def pretend_hub() -> None:
    """A hub that takes everything."""
    import huggingface_hub

    class Hub:
        def create_repo(self, *arguments: Any, **named: Any) -> None: ...

        def upload_folder(self, *, repo_id: str, **named: Any) -> str:
            return f"hub:{repo_id}"

    huggingface_hub.HfApi = Hub  # type: ignore[assignment,misc]


def main(root: str, label: str, deep: bool = False, here: bool = False) -> None:
    """Run to a step, and say how it went as the command line does."""
    made: dict[str, ArtifactRef] = {}

    def command(**_: object) -> None:
        made.update(run_to(root, label, deep, here))

    chosen: Callable[..., Any] = command
    code = guarded(chosen)
    print(json.dumps(as_told(made)))
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
