"""The sizes of the study, and the models and questions that it starts from."""

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from advdistill_core.config import DistillConfig, StudentConfig
from advdistill_core.models import chat
from advdistill_core.training.rows import Group, Row
from tests.bench.study import task


@dataclass(frozen=True)
class Model:
    """A model, and when it stops learning from the corpus of worked questions.

    Args:
        stop_at: sampled accuracy on questions like those that are distilled.
        max_rounds: of `steps_per_round` steps; then it stops whatever it can do.
    """

    hidden_size: int
    num_layers: int
    stop_at: float
    max_rounds: int = 16
    steps_per_round: int = 100
    rows_per_step: int = 64
    learning_rate: float = 4e-3


@dataclass(frozen=True)
class Setting:
    """Everything that decides the study's figures.

    Args:
        choices: 0, or the number of answers that a question may have (`task.Kind`).
        bare: share of the solutions in the corpus that are the bare answer.
    """

    teacher: Model = Model(96, 4, 0.5)
    student: Model = Model(64, 3, 0.1)
    num_prompts: int = 4000
    k: int = 8
    temperature: float = 0.8
    num_questions: int = 600
    steps: int = 240
    groups_per_step: int = 16
    learning_rate: float = 1.5e-3
    more_samples: int = 2
    choices: int = 0
    bare: float = task.STYLES["bare"]


FULL = Setting()
# A bare answer is right by luck in a third of all cases. The models stop where they would have the skill
# of the first setting's: 0.5 and 0.1, and a third of the rest by luck.
CHOICES = replace(FULL, teacher=Model(96, 4, 0.65), student=Model(64, 3, 0.4), choices=3)
# The same with a quarter of the steps, since those of CHOICES bring every arm near 100 % on `same`.
CHOICES_SHORT = replace(CHOICES, steps=60)
# Teacher and student answer at once half of the time. They stop at the same skill in written steps.
CHOICES_BARE = replace(CHOICES_SHORT, teacher=Model(96, 4, 0.5), student=Model(64, 3, 0.37), bare=0.5)
# Every prompt is seen often: 240 steps go through 500 prompts many times.
FEW_PROMPTS = replace(FULL, num_prompts=500)
SMOKE = Setting(
    teacher=Model(32, 2, 1.0, 2, 10),
    student=Model(16, 2, 1.0, 1, 5),
    num_prompts=24,
    k=4,
    num_questions=12,
    steps=3,
    groups_per_step=4,
)
SETTINGS = {
    "sums": FULL,
    "choices": CHOICES,
    "choices-short": CHOICES_SHORT,
    "choices-bare": CHOICES_BARE,
    "few-prompts": FEW_PROMPTS,
    "smoke": SMOKE,
}
MAX_NEW_TOKENS = 80


def prepare(folder: Path, setting: Setting) -> None:
    """Write the questions and train the teacher and the student to start from, where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    _same_setting(folder, setting)
    without: set[str] = set()
    for name, kind in task.SETS.items():
        asked = task.asked(kind, setting.choices)
        _write(folder / f"{name}.jsonl", task.questions(asked, setting.num_questions, name, without))
    trained = task.asked(task.TRAINED, setting.choices)
    prompts = task.questions(trained, 5 * setting.num_prompts, "prompts", set(without))
    _write(folder / "prompts.jsonl", prompts)
    for name, model in (("teacher", setting.teacher), ("student", setting.student)):
        if not (folder / name).is_dir():
            _teach(folder / name, name, model, setting, set(without))


def _same_setting(folder: Path, setting: Setting) -> None:
    """Refuse to mix two settings in one folder."""
    record = folder / "setting.json"
    wanted = json.dumps(asdict(setting) | {"task": _source_hash()}, indent=1)
    if record.exists() and record.read_text() != wanted:
        raise SystemExit(f"{record} is of another setting or task; choose another --folder.")
    record.write_text(wanted)


def _source_hash() -> str:
    return hashlib.sha256(Path(task.__file__).read_bytes()).hexdigest()[:16]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _teach(folder: Path, name: str, model: Model, setting: Setting, without: set[str]) -> None:
    """Train a model from scratch on the corpus, with the product's trainer, until it is good enough."""
    from advdistill_core import models
    from advdistill_core.progress import silent
    from advdistill_core.training.fit import fit
    from advdistill_core.training.student import load_student, save_student

    untrained = folder.with_name(f"{name}-untrained")
    task.build_model(untrained, len(name), model.hidden_size, model.num_layers)
    tokenizer = models.load_tokenizer(str(untrained))
    config = StudentConfig(
        model=str(untrained),
        learning_rate=model.learning_rate,
        lr_schedule="cosine",
        groups_per_step=model.rows_per_step,
        checkpoint_every_steps=model.steps_per_round,
        device="cpu",
    )
    learning: Any = load_student(config)
    for number in range(model.max_rounds):
        count = model.steps_per_round * model.rows_per_step
        pairs = task.corpus(count, f"{name} {number}", without, setting.choices, setting.bare)
        with tempfile.TemporaryDirectory() as checkpoints:
            groups = _groups(tokenizer, list(pairs))
            learning = fit(learning, groups, config, Path(checkpoints), silent).model.eval()
        reached = _accuracy(learning, tokenizer, setting, without)
        print(f"{name}: {reached:.1%} after {(number + 1) * model.steps_per_round} steps", flush=True)
        if reached >= model.stop_at:
            break
    unfinished = folder.with_name(f"{name}-unfinished")
    save_student(learning, unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)


def _groups(tokenizer: Any, pairs: list[tuple[str, str]]) -> list[Group]:
    asked = chat.encode(tokenizer, [chat.render(tokenizer, _asked(question)) for question, _ in pairs])
    solved = tokenizer([text for _, text in pairs], add_special_tokens=False)["input_ids"]
    return [
        Group(f"{i}", tuple(prompt), (Row((*ids, tokenizer.eos_token_id), 1.0),))
        for i, (prompt, ids) in enumerate(zip(asked, solved, strict=True))
    ]


def _accuracy(model: Any, tokenizer: Any, setting: Setting, without: set[str], count: int = 400) -> float:
    """Share of sampled answers that are right, on questions of their own."""
    from advdistill_core.teachers.local import sample

    asked = task.asked(task.TRAINED, setting.choices)
    rows = task.questions(asked, count, "stop", set(without))
    responses = sample(
        model,
        tokenizer,
        [chat.render(tokenizer, _asked(row["question"])) for row in rows],
        seeds=list(range(count)),
        temperature=setting.temperature,
        max_new_tokens=MAX_NEW_TOKENS,
        batch_size=count,
    )
    return sum(r.text.split("=")[-1] == rows[r.index]["answer"] for r in responses) / count


def _asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def configuration(folder: Path, setting: Setting, seed: int) -> DistillConfig:
    """The run of one seed: its own prompts, responses and order of the data."""
    sets: list[dict[str, Any]] = [
        {
            "name": name.replace(" ", "-"),
            "source": "file",
            "path": str(folder / f"{name}.jsonl"),
            "num_questions": setting.num_questions,
        }
        for name in task.SETS
    ]
    return DistillConfig.model_validate(
        {
            "name": f"study-{seed}",
            "prompts": {
                "source": "file",
                "path": str(folder / "prompts.jsonl"),
                "num_train": setting.num_prompts,
                "num_heldout": 0,
                "seed": seed,
            },
            "teacher": {
                "model": str(folder / "teacher"),
                "k": setting.k,
                "temperature": setting.temperature,
                "max_new_tokens": MAX_NEW_TOKENS,
                "seed": seed,
                "device": "cpu",
                "batch_size": 512,
                "shard_size": 500,
            },
            "rewards": {"num_workers": 1},
            "student": {
                "model": str(folder / "student"),
                "learning_rate": setting.learning_rate,
                "max_steps": setting.steps,
                "groups_per_step": setting.groups_per_step,
                "seed": seed,
                "device": "cpu",
                "checkpoint_every_steps": setting.steps,
            },
            "evaluation": {
                "sets": sets,
                "max_new_tokens": MAX_NEW_TOKENS,
                "more_samples": setting.more_samples,
                "more_temperature": 1.0,
                "device": "cpu",
                "batch_size": 600,
                "shard_size": 600,
            },
            "storage": {"root": str(folder / "store")},
        }
    )
