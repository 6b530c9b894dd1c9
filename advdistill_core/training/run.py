"""A whole training: on the weighted responses, then on wrong ones too if that is asked for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advdistill_core.config.student import StudentConfig
from advdistill_core.progress import Progress
from advdistill_core.training.arguments import schedule_of
from advdistill_core.training.fit import Fitted, Second, fit
from advdistill_core.training.heldout import HeldOut
from advdistill_core.training.negatives import chosen_only, second_stage
from advdistill_core.training.rows import Group, Row


@dataclass(frozen=True)
class Job:
    """What a student is trained on.

    Args:
        groups: weighted responses.
        paired: groups with right and wrong responses, for the second stage.
        heldout: what the student is measured on meanwhile.
    """

    groups: Sequence[Group]
    paired: Sequence[Group] = ()
    heldout: HeldOut | None = None

    def to_json(self) -> str:
        """In a form that `from_json` reads; floats survive exactly."""
        held = self.heldout
        return json.dumps(
            {
                "groups": _groups_to_json(self.groups),
                "paired": _groups_to_json(self.paired),
                "heldout": None if held is None else held.to_json(),
                "heldout_groups": [] if held is None else _groups_to_json(held.groups),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Job":
        document = json.loads(text)
        held = document["heldout"]
        return cls(
            _groups_from_json(document["groups"]),
            _groups_from_json(document["paired"]),
            held and HeldOut.from_json(held, _groups_from_json(document["heldout_groups"])),
        )


def _groups_to_json(groups: Sequence[Group]) -> list[Any]:
    return [
        [g.prompt_id, g.prompt, [[r.completion, r.weight, r.negative, r.num_masked] for r in g.rows]]
        for g in groups
    ]


def _groups_from_json(found: list[Any]) -> list[Group]:
    return [
        Group(name, tuple(prompt), tuple(Row(tuple(ids), *rest) for ids, *rest in rows))
        for name, prompt, rows in found
    ]


def train(
    model: Any, job: Job, config: StudentConfig, folder: Path, progress: Progress, tokenizer: Any = None
) -> Fitted:
    """Train a model in one stage or two.

    Args:
        folder: for checkpoints; those of the second stage are in `negatives`.
        tokenizer: needed where something is held out.

    Raises:
        StageError: as `fit`.
    """
    paired = list(job.paired) if config.negatives.kind != "off" else []
    if config.negatives.factor == 0:
        paired = chosen_only(paired)
    then = second_stage(config)
    after = len(schedule_of(then, paired)) if paired else 0
    first = fit(
        model, job.groups, config, folder, progress,
        heldout=job.heldout, tokenizer=tokenizer, steps_after=after,
    )  # fmt: skip
    if not paired:
        return first
    assert first.checkpoint is not None
    second = Second(len(first.log), first.checkpoint)
    done = fit(first.model, paired, then, folder / "negatives", progress, second=second)
    return replace(done, log=first.log + done.log, notes=first.notes | done.notes)
