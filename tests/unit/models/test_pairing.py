"""What does not fit between teacher and student is said before anything is generated."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.models import pairing, tiny
from advdistill_core.progress import Event
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Store


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model whose files know of no template and no end."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny.folder(), folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings = {k: v for k, v in settings.items() if k not in ("chat_template", "eos_token")}
    path.write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    return folder


def config(
    teacher: Any = "tiny-random-llama", student: Any = "tiny-random-llama", **more: Any
) -> DistillConfig:
    return DistillConfig.model_validate(
        {"teacher": {"model": str(teacher), **more}, "student": {"model": str(student)}}
    )


def test_a_whole_model_is_worth_no_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(tiny.folder(), whole)
    assert pairing.facts(str(whole)) == pairing.Facts(True, True)
    assert pairing.remarks(config(whole, "smollm2-135m-instruct")) == []
    pairing.check(config(whole, whole))


def test_what_is_missing_is_named(bare: Path) -> None:
    template, end = pairing.remarks(config(bare))
    assert template == f"teacher {bare} has no chat template: it gets the bare text of the messages"
    assert end == f"teacher {bare} names no end token: its responses may run to 256 tokens"
    pairing.check(config(bare))
    with pytest.raises(InputError, match=r"student\.model: got .* without an end token"):
        pairing.check(config(student=bare))


def test_the_stage_tells_it_first(tmp_path: Path) -> None:
    folder = tmp_path / "untemplated"
    shutil.copytree(tiny.folder(), folder)
    (folder / "chat_template.jinja").unlink()
    wanted = DistillConfig.model_validate(
        {
            "prompts": {"num_train": 2, "num_heldout": 1},
            "teacher": {"model": str(folder), "k": 1, "max_new_tokens": 2, "device": "cpu"},
        }
    )
    store, events = Store(str(tmp_path / "store")), list[Event]()
    loaded = run_stage(LOAD, wanted, {}, store)
    run_stage(GENERATE, wanted, {"prompts": loaded}, store, progress=events.append)
    first = next(event for event in events if event.stage == "generate")
    assert first.message == f"teacher {folder} has no chat template: it gets the bare text of the messages"


def test_vllm_needs_a_template(bare: Path) -> None:
    with pytest.raises(InputError, match=r"teacher\.model: got .* without a chat template"):
        pairing.check(config(bare, backend="vllm"))
    pairing.check(config(bare, backend="vllm", vllm={"extra_arguments": ["--chat-template=x.jinja"]}))


def test_a_model_that_is_not_here_is_not_judged() -> None:
    assert pairing.facts("some-owner/some-model-that-is-not-here") is None
