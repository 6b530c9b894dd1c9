"""Whether a folder holds a causal language model that can be loaded, told without loading it."""

import json
import re
from pathlib import Path
from typing import Any

from advdistill_core.errors import InputError

# Classes that continue a text. Models that bring code of their own may call theirs anything.
_CAUSAL = re.compile(r"(ForCausalLM|LMHeadModel|LMHead|ForConditionalGeneration)$")
_AGAIN = "Copy or download it again."


def check(folder: Path, remedy: str) -> None:
    """Refuse a folder that is no whole model of the right kind.

    Args:
        remedy: what to do about a folder that is no model at all.

    Raises:
        InputError: naming the file that is missing, torn or of another kind.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise InputError("model", f"{folder}, which is {what}", "a folder that exists", remedy)
    if not (folder / "config.json").is_file():
        raise InputError("model", str(folder), "a folder with config.json", remedy)
    _check_kind(folder, read_config(folder))
    for file in _weight_files(folder, remedy):
        _check_weights(file)
    _check_tokenizer(folder, remedy)


def read_config(folder: Path) -> dict[str, Any]:
    """A model's configuration.

    Raises:
        InputError: it is torn, or no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("model", f"{path} ({error})", "a whole JSON file", _AGAIN) from error
    if not isinstance(config, dict):
        raise InputError("model", f"{path}, a {type(config).__name__}", "a JSON object", _AGAIN)
    return config


def _check_kind(folder: Path, config: dict[str, Any]) -> None:
    kinds = [str(kind) for kind in config.get("architectures") or []]
    seq2seq = config.get("is_encoder_decoder") is True or "T5ForConditionalGeneration" in kinds
    if "auto_map" in config or (not seq2seq and (not kinds or any(_CAUSAL.search(kind) for kind in kinds))):
        return
    raise InputError(
        "model",
        f"{folder} of the kind {', '.join(kinds) or 'encoder and decoder'}",
        "a causal language model, such as LlamaForCausalLM",
        "Choose one that continues texts.",
    )


def _weight_files(folder: Path, remedy: str) -> list[Path]:
    """The safetensors files; all of them are there."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError("model", f"{index} ({error})", "the list of the weight files", _AGAIN) from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        if any(folder.glob("*.bin")) or any(folder.glob("*.gguf")):
            remedy = "Only safetensors are loaded; save the model with safe_serialization."
        raise InputError(
            "model", f"{folder} without {missing[0]}", "a folder with safetensors weights", remedy
        )
    return [folder / name for name in names]


def _check_weights(file: Path) -> None:
    """Read the header, which says how long the file must be."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError("model", f"{file} ({error})", "a whole safetensors file", _AGAIN) from error


def _check_tokenizer(folder: Path, remedy: str) -> None:
    if not any(folder.glob("token*")) and not any(folder.glob("vocab*")):
        raise InputError(
            "model", f"{folder} without a tokenizer", "a folder with the tokenizer's files", remedy
        )
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError("model", f"{path} ({error})", "a whole JSON file", _AGAIN) from error
