"""Conversations as text, in the form that a model was trained on."""

from collections.abc import Mapping, Sequence
from typing import Any


def render(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The text after which the model's answer begins.

    Uses the model's own chat template; a base model without one gets the messages'
    contents, a blank line apart. Tokenize the result with `add_special_tokens=False`
    (see `encode`): templates bring their special tokens with them.

    Args:
        messages: `role` and `content` of each, the last one the user's.
    """
    if getattr(tokenizer, "chat_template", None):
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
        return text
    return "\n\n".join(message["content"] for message in messages) + "\n\n"


def encode(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered prompts.

    A tokenizer without a chat template adds the special tokens that it begins texts with.
    """
    special = not getattr(tokenizer, "chat_template", None)
    ids: list[list[int]] = tokenizer(list(prompts), add_special_tokens=special)["input_ids"]
    return ids


def end_token_ids(model: Any, tokenizer: Any) -> set[int]:
    """Ids after which an answer is finished, from the generation settings and the tokenizer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None}
