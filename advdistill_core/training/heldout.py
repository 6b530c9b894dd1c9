"""Measuring the student in training, on training prompts that are kept back."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from advdistill_core.config.rewards import RewardsConfig
from advdistill_core.config.student import EarlyStoppingConfig, StudentConfig
from advdistill_core.errors import InputError
from advdistill_core.training import history
from advdistill_core.training.batching import Schedule
from advdistill_core.training.forward import causal_lm
from advdistill_core.training.rows import Group


@dataclass(frozen=True)
class Question:
    """A prompt kept back, as the student is asked it, and what its answer is graded with."""

    prompt_id: str
    prompt: str
    task: str
    reference: str
    choices: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class HeldOut:
    """The prompts kept back, and their weighted responses where they have some."""

    questions: tuple[Question, ...]
    groups: tuple[Group, ...]
    rewards: RewardsConfig

    def to_json(self) -> dict[str, Any]:
        """All but the groups."""
        return {"questions": [asdict(q) for q in self.questions], "rewards": self.rewards.model_dump()}

    @classmethod
    def from_json(cls, document: dict[str, Any], groups: Sequence[Group]) -> "HeldOut":
        questions = (Question(**{**q, "choices": tuple(q["choices"])}) for q in document["questions"])
        return cls(tuple(questions), tuple(groups), RewardsConfig.model_validate(document["rewards"]))


def kept_back(prompt_ids: Iterable[str], config: StudentConfig) -> frozenset[str]:
    """Which training prompts are evaluated instead of trained on; none with early stopping off.

    Raises:
        InputError: nothing would be left to train on.
    """
    wanted: EarlyStoppingConfig = config.early_stopping
    if not wanted.every_steps:
        return frozenset()

    def place(prompt_id: str) -> bytes:
        return hashlib.blake2b(f"kept back/{config.seed}/{prompt_id}".encode()).digest()

    ids = sorted(prompt_ids, key=place)
    if len(ids) <= wanted.num_prompts:
        raise InputError(
            "student.early_stopping.num_prompts",
            wanted.num_prompts,
            f"fewer than the {len(ids)} training prompts",
        )
    return frozenset(ids[: wanted.num_prompts])


class Examiner:
    """Evaluates the model of a trainer; in the first of several processes, for all.

    Args:
        attention: the model's own attention implementation, which generation needs.
        asked_to_stop: looked at while answers are generated.
    """

    def __init__(
        self,
        heldout: HeldOut,
        config: StudentConfig,
        tokenizer: Any,
        attention: str,
        asked_to_stop: Callable[[], bool],
    ) -> None:
        self.heldout, self.config, self.tokenizer = heldout, config, tokenizer
        self.attention, self.asked_to_stop = attention, asked_to_stop

    def __call__(self, trainer: Any) -> dict[str, float] | None:
        """The figures by name; None when a stop was asked for meanwhile."""
        names = (history.ACCURACY, history.LOSS)
        found: dict[str, float] | None = {}
        if trainer.args.process_index == 0:
            found = self._measure(trainer)
        if trainer.args.world_size == 1:
            return found
        values = [float(found is None), *((found or {}).get(name, float("nan")) for name in names)]
        told = torch.tensor(values, dtype=torch.float64, device=trainer.args.device)
        torch.distributed.broadcast(told, 0)
        stopped, *figures = told.tolist()
        return None if stopped else {n: v for n, v in zip(names, figures, strict=True) if v == v}

    def _measure(self, trainer: Any) -> dict[str, float] | None:
        found = {}
        if self.heldout.groups:
            found[history.LOSS] = trainer.loss_here(self._schedule(trainer.shared).micro_batches(0))
        if self.config.early_stopping.metric == "accuracy":
            try:
                accuracy = self._accuracy(trainer)
            except _AskedToStop:
                return None
            if accuracy is not None:
                found[history.ACCURACY] = accuracy
        return found

    def _schedule(self, shared: bool) -> Schedule:
        groups, config = self.heldout.groups, self.config
        return Schedule(
            groups, len(groups), 1, 0, "token_mean", config.max_seq_tokens, config.batch_tokens, shared
        )

    def _accuracy(self, trainer: Any) -> float | None:
        """Share of greedy answers that the verifier accepts; None if it could decide none."""
        from advdistill_core.rewards import UNDECIDED, Answer, Grader

        questions, texts = self.heldout.questions, self._answers(trainer)
        with Grader(self.heldout.rewards) as grader:
            graded = grader.grade(
                [
                    Answer(q.task, q.reference, text, truncated, q.choices, q.source)
                    for q, (text, truncated) in zip(questions, texts, strict=True)
                ]
            )
        decided = [g.verdict == "correct" for g in graded if g.verdict not in UNDECIDED]
        return sum(decided) / len(decided) if decided else None

    def _answers(self, trainer: Any) -> list[tuple[str, bool]]:
        """For each question the greedy answer, and whether it was cut short."""
        from advdistill_core.teachers.local import sample

        def look_up(num_tokens: int) -> None:
            if self.asked_to_stop():
                raise _AskedToStop

        settings = self.config.early_stopping
        model = causal_lm(trainer.accelerator.unwrap_model(trainer.model))
        with for_generation(model, self.attention), trainer.accelerator.autocast():
            responses = sample(
                model,
                self.tokenizer,
                [q.prompt for q in self.heldout.questions],
                seeds=[0] * len(self.heldout.questions),
                max_new_tokens=settings.max_new_tokens,
                batch_size=settings.batch_size,
                on_progress=look_up,
            )
            found = {r.index: (r.text, r.finish_reason == "length") for r in responses}
        return [found[i] for i in range(len(self.heldout.questions))]


class _AskedToStop(Exception):
    """Answers are no longer wanted."""


@contextmanager
def for_generation(model: Any, attention: str) -> Any:
    """A model that is being trained, as it was before `forward.attach`."""
    trained_with, training = model.config._attn_implementation, model.training
    model.eval()
    model.set_attn_implementation(attention)
    try:
        yield
    finally:
        model.set_attn_implementation(trained_with)
        model.train(training)
