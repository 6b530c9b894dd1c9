"""A tiny random Llama, made on the spot: for smoke runs and tests.

It has a character-level tokenizer with a chat template and about 100,000 parameters. It
has learned nothing; everything about it works as with a real model.
"""

from pathlib import Path
from typing import Any

from advdistill_core.models.home import build_once, no_bars

NAME = "tiny-random-llama"
_VERSION = "1"

_SPECIAL = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>")
_CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))  # ASCII
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def folder() -> Path:
    """The model's folder in the user's cache; made on first use in about a second."""
    return build_once(f"{NAME}-{_VERSION}", build)


def build(target: Path, seed: int = 0, hidden_size: int = 64, num_layers: int = 2) -> None:
    """Write a tiny model and its tokenizer into a folder.

    Args:
        seed: of the weights, which are the same wherever torch's generator is.
        hidden_size: a multiple of 16.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(_SPECIAL) + len(_CHARACTERS),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 16,
        num_key_value_heads=max(1, hidden_size // 32),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.3,  # far from uniform, so that sampling has something to show
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config.pad_token_id = 0
    with no_bars():
        model.save_pretrained(target)
    _save_tokenizer(target)


def _save_tokenizer(target: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *_CHARACTERS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in _SPECIAL])
    make: Any = PreTrainedTokenizerFast
    make(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(target)
