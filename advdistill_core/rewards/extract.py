"""Where the final answer stands in a response.

Every function here takes time linear in the text, whatever the text is: it runs in the
calling process, where nothing can kill it.
"""

import re
from typing import NamedTuple

from advdistill_core.config import PolicyConfig

_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|(?<!\\)\\[{}]|[{}]")
_BOX_WORD = re.compile(r"\\(?:boxed|fbox)\b")
# What may stand between two boxes that are one answer: math delimiters, spacing, a comma,
# "and"/"or" (also as the end of a \text{}), the left side of an assignment.
_JOINER = re.compile(
    r"(?:\s|\$|\\[()\[\],;:! ]|\\quad|\\qquad|[.])*"
    r"(?:[,;&]|,?\s*(?:and|or)\b|,?\s*\\(?:text|mbox|textrm|mathrm)\{[^{}]{0,40}\b(?:and|or)\s*\})?"
    r"(?:\s|\$|\\[()\[\],;:! ]|\\quad|\\qquad)*"
    r"(?:[A-Za-z][\w{}()]{0,12}\s*=\s*)?"
)
_PERCENT_AFTER = re.compile(r"\s*(?:\\\)|\$)?\s*(?:\\?%|percent(?:age)?\b|pct\b)", re.IGNORECASE)
_STATEMENT = re.compile(r"\b(?i:answer)\b(?i:\s*(?:is|are)\b\s*:?|\s*[:=])|^A:", re.MULTILINE)
_BOX_ONLY = re.compile(r"\s*\\(?:boxed|fbox)\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}\s*")
_MAX_JOINER = 120
_MAX_PEEL = 8


class Box(NamedTuple):
    """A `\\boxed{}`: where it stands, and what is inside."""

    start: int
    end: int
    content: str


def visible(text: str, ignore_think: bool = True) -> str:
    """The text that is meant to be read: what follows the thoughts.

    An unclosed `<think>` hides everything after it: the answer never came.
    """
    if not ignore_think:
        return text
    end = text.rfind("</think>")
    rest = text[end + len("</think>") :] if end >= 0 else text
    start = rest.find("<think>")
    return rest if start < 0 else rest[:start]


def in_answer_tags(text: str) -> str | None:
    """The content of the last `<answer>...</answer>`, or None."""
    end = text.rfind("</answer>")
    if end < 0:
        return None
    start = text.rfind("<answer>", 0, end)
    return None if start < 0 else text[start + len("<answer>") : end]


def boxes(text: str) -> list[Box]:
    """The outermost closed boxes, in order; braces inside them are balanced."""
    first = _BOX_WORD.search(text)
    if first is None:
        return []
    found: list[tuple[int, int, int]] = []  # where a box, its content and the box's end stand
    stack: list[tuple[int, int] | None] = []  # for a box: where it and its content start
    for token in _BOX_TOKEN.finditer(text, first.start()):
        piece = token.group()
        if piece == "{":
            stack.append(None)
        elif piece == "}":
            opened = stack.pop() if stack else None
            if opened is not None:
                found.append((opened[0], opened[1], token.end()))
        elif piece[-1] == "{" and len(piece) > 2:
            stack.append((token.start(), token.end()))
    outermost: list[Box] = []
    for start, inside, end in sorted(found):
        if not outermost or start >= outermost[-1].end:
            outermost.append(Box(start, end, text[inside : end - 1]))
    return outermost


def last_boxed(text: str) -> str | None:
    """The content of the last box, as it stands; None if there is no closed one."""
    found = boxes(text)
    return found[-1].content if found else None


def boxed_answer(text: str, policy: str = "last") -> tuple[list[str], int] | None:
    """The contents of the boxes that form the final answer, and where the last one ends.

    Args:
        policy: `last` takes the last box and those joined to it ("1 and 2" in two boxes);
            `all` takes every box.
    """
    found = boxes(text)
    if not found:
        return None
    chosen = found
    if policy == "last":
        first = len(found) - 1
        while first and _joined(text, found[first - 1].end, found[first].start):
            first -= 1
        chosen = found[first:]
    contents = [_innermost(box.content) for box in chosen]
    tail = _PERCENT_AFTER.match(text, chosen[-1].end, chosen[-1].end + 40)
    if tail and not contents[-1].rstrip().endswith("%"):
        contents[-1] += r"\%"
    return contents, chosen[-1].end


def _joined(text: str, end: int, start: int) -> bool:
    return start - end <= _MAX_JOINER and _JOINER.fullmatch(text, end, start) is not None


def _innermost(content: str) -> str:
    """Peel boxes that hold nothing but a box; a few, as each costs a copy."""
    for _ in range(_MAX_PEEL):
        inner = _BOX_ONLY.fullmatch(content)
        if inner is None:
            break
        content = inner.group(1)
    return content


def final_text(text: str, policy: PolicyConfig) -> str | None:
    """The final answer as text: tags, the last box, "the answer is ...", else all of it.

    Returns:
        The text without surrounding space; None if there is none.
    """
    shown = visible(text, policy.ignore_think)
    tagged = in_answer_tags(shown)
    if tagged is not None:
        return tagged.strip() or None
    boxed = boxed_answer(shown, policy.boxes)
    if boxed is not None:
        return ", ".join(content.strip() for content in boxed[0]) or None
    if policy.require_boxed:
        return None
    stated = last_statement(shown)
    if stated is not None:
        shown = shown[stated[1] :].strip().split("\n", 1)[0].strip("*")
    return shown.strip() or None


def after_hashes(text: str) -> str | None:
    """What follows the last `####` on its line, as GSM8K writes it."""
    start = text.rfind("####")
    if start < 0:
        return None
    return text[start + 4 :].lstrip("#").split("\n", 1)[0].strip() or None


def last_statement(text: str, start: int = 0) -> tuple[int, int] | None:
    """Where the last "answer is", "answer:" begins and ends, if something follows it."""
    last = None
    for match in _STATEMENT.finditer(text, start):
        last = match
    if last is None or not text[last.end() :].strip():
        return None
    return last.span()
