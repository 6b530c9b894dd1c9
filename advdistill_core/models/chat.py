"""Conversations as text, in the form that a model was trained on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Stands around a special token's name that is a message's text and no mark of the template;
# a noncharacter of Unicode, which no tokenizer knows and no text has.
_QUOTE = "\ufdd0"


def render(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The text after which the model's answer begins.

    Uses the model's own chat template; a base model without one gets the messages'
    contents, a blank line apart. Tokenize the result with `encode`: templates bring their
    special tokens with them, and the names of such tokens within a message are quoted.

    Args:
        messages: `role` and `content` of each, the last one the user's.
    """
    names = special_names(tokenizer)
    quoted = [{**message, "content": _quote(message["content"], names)} for message in messages]
    if getattr(tokenizer, "chat_template", None):
        text: str = tokenizer.apply_chat_template(quoted, tokenize=False, add_generation_prompt=True)
        return text
    return "\n\n".join(message["content"] for message in quoted) + "\n\n"


def encode(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered prompts.

    A tokenizer without a chat template adds the special tokens that it begins texts with.
    Quoted names of special tokens become the tokens of their letters.
    """
    special = not getattr(tokenizer, "chat_template", None)
    ids: list[list[int]] = tokenizer(
        [prompt.partition(_QUOTE)[0] for prompt in prompts], add_special_tokens=special
    )["input_ids"]
    for row, prompt in zip(ids, prompts, strict=True):
        for i, piece in enumerate(prompt.split(_QUOTE)[1:], 1):
            if i % 2:
                row += encode_plain(tokenizer, piece)
            elif piece:
                row += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def encode_plain(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text in which nothing is a special token, whatever it spells."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def special_names(tokenizer: Any) -> list[str]:
    """How the special tokens are written, e.g. `<|im_end|>`; the longest first."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=lambda name: (-len(name), name))


def end_token_ids(model: Any, tokenizer: Any) -> set[int]:
    """Ids after which an answer is finished, from the generation settings and the tokenizer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None}


def _quote(content: str, names: Sequence[str]) -> str:
    content = content.replace(_QUOTE, "")
    if not any(name in content for name in names):
        return content
    return re.sub("|".join(map(re.escape, names)), rf"{_QUOTE}\g<0>{_QUOTE}", content)
