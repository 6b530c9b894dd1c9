"""The parts of the reward that look at the response's form, each a pure function of it."""

import math
import re

from advdistill_core.rewards.equations import equation_checks

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_STRUCTURES = {
    "any": re.compile(r".*\S.*", re.DOTALL),
    "answer": re.compile(r"(?:(?!</?answer>).)*<answer>(?:(?!</?answer>).)+</answer>\s*", re.DOTALL),
    "think_answer": re.compile(
        r"\s*<think>(?:(?!</?(?:think|answer)>).)+</think>"
        r"\s*<answer>(?:(?!</?(?:think|answer)>).)+</answer>\s*",
        re.DOTALL,
    ),
}
# At the start of a line, or for a word that opens a step, of a sentence.
_STEP = re.compile(
    r"^[ \t]*(?:step[ \t]*\d|\d{1,3}[.):](?!\d)|[-*•][ \t])"
    r"|(?:^[ \t]*|(?<=[.!?:][ \t]))(?:first|second|third|next|then|finally|therefore)\b",
    re.I | re.M,
)


def has_structure(text: str, structure: str) -> float:
    """1.0 if the whole text, to its very end, has the required structure, else 0.0.

    `any` asks only that there is text; `boxed` for exactly one closed `\\boxed{}`.
    """
    if structure == "boxed":
        from advdistill_core.rewards.extract import boxes

        return float(len(boxes(text)) == 1)
    return float(_STRUCTURES[structure].fullmatch(text) is not None)


def tag_share(text: str) -> float:
    """0.25 for each of the four think and answer tags that is there exactly once."""
    return sum(0.25 for tag in TAGS if text.count(tag) == 1)


def brevity(num_tokens: int, max_len: int) -> float:
    """1.0 for no token, falling along a cosine to 0.0 at `max_len` tokens and beyond.

    Source: the cosine reward of "Demystifying Long Chain-of-Thought" (Yeo et al. 2025)
    from 1.0 to 0.5, rescaled to 0..1. Progress is clamped, so that a response longer than
    `max_len` does not climb the cosine again.
    """
    progress = min(max(num_tokens / max_len, 0.0), 1.0)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def repetition(text: str) -> float:
    """1 - unique / total word 3-grams, in lower case; 0.0 below three words."""
    words = text.lower().split()
    total = len(words) - 2
    if total <= 0:
        return 0.0
    return 1.0 - len(set(zip(words, words[1:], words[2:], strict=False))) / total


def count_steps(text: str) -> int:
    """Numbered and bulleted lines, `Step 1`, and words such as `then` that open a line or sentence."""
    return sum(1 for _ in _STEP.finditer(text))


def step_share(text: str) -> float:
    """min(1, steps / 3)."""
    return min(1.0, count_steps(text) / 3)


def overlong(num_tokens: int, max_len: int, overlong_tokens: int) -> float:
    """0 up to `max_len - overlong_tokens`, then linearly down to -1 at `max_len` and beyond.

    Source: the soft overlong punishment of DAPO (Yu et al. 2025), equation 13.
    """
    over = num_tokens - (max_len - overlong_tokens)
    return 0.0 - min(max(over / overlong_tokens, 0.0), 1.0)


def equation_share(text: str) -> float:
    """Share of the in-line equations that hold; 0.0 where there is none. See `equation_checks`."""
    held = [holds for _, holds in equation_checks(text)]
    return sum(held) / len(held) if held else 0.0
