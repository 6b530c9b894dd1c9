"""Whether teacher and student can talk and be talked to; found out from their small files.

Different tokenizers are fine: responses pass as text and are rendered and tokenized anew
for the student.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.models.sources import BUILT_IN, as_folder

_TEMPLATES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class Facts:
    """What a model's files say of its conversations."""

    has_template: bool
    has_end: bool


def facts(name: str) -> Facts | None:
    """Read a model's files; None for one of the Hub that is not here yet."""
    if name in BUILT_IN:
        return Facts(True, True)
    folder = as_folder(name)
    find: Callable[[str], Path | None] = _in_cache(name) if folder is None else _in_folder(folder)
    settings = _read(find("tokenizer_config.json"))
    if settings is None and folder is None:
        return None
    settings = settings or {}
    has_template = bool(settings.get("chat_template")) or any(find(file) for file in _TEMPLATES)
    marks = _read(find("special_tokens_map.json")) or {}
    return Facts(has_template, bool(settings.get("eos_token") or marks.get("eos_token")))


def check(config: DistillConfig) -> None:
    """Refuse what a stage would fail on.

    Raises:
        InputError: the student's tokenizer has no end token, or vLLM has no template to use.
    """
    student, teacher = facts(config.student.model), _teacher(config)
    if student and not student.has_end:
        raise InputError(
            "student.model",
            f"{config.student.model} without an end token",
            "a tokenizer with an eos_token, which the student learns to stop with",
            "Name it in the model's tokenizer_config.json.",
        )
    arguments = config.teacher.vllm.extra_arguments
    given = any(argument.startswith("--chat-template") for argument in arguments)
    if config.teacher.backend == "vllm" and teacher and not teacher.has_template and not given:
        raise InputError(
            "teacher.model",
            f"{config.teacher.model} without a chat template",
            "one with it for backend vllm",
            "Give one: teacher.vllm.extra_arguments=[--chat-template=FILE].",
        )


def remarks(config: DistillConfig) -> list[str]:
    """What is worth a line before a generation: each names the model and what follows."""
    lines = []
    student, teacher = facts(config.student.model), _teacher(config)
    bare = "has no chat template: it gets the bare text of the messages"
    if teacher and not teacher.has_template:
        lines.append(f"teacher {config.teacher.model} {bare}")
    if teacher and not teacher.has_end:
        limit = config.teacher.max_new_tokens
        lines.append(
            f"teacher {config.teacher.model} names no end token: its responses may run to {limit} tokens"
        )
    if student and not student.has_template:
        lines.append(f"student {config.student.model} {bare}")
    return lines


def _teacher(config: DistillConfig) -> Facts | None:
    return None if config.teacher.backend == "openai" else facts(config.teacher.model)


def _in_folder(folder: Path) -> Callable[[str], Path | None]:
    return lambda file: folder / file if (folder / file).is_file() else None


def _in_cache(name: str) -> Callable[[str], Path | None]:
    from huggingface_hub import try_to_load_from_cache

    def find(file: str) -> Path | None:
        found = try_to_load_from_cache(name, file)
        return Path(found) if isinstance(found, str) else None

    return find


def _read(path: Path | None) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
