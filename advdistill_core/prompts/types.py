"""A question, before it becomes a row of the prompts table."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from advdistill_core.config import PromptSource

_FIELD = re.compile(r"\{(question|choices)\}")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """A question with its reference answer.

    Args:
        prompt_id: stable name; from the source, or a hash of the content.
        source: where it came from, e.g. `reasoning_gym/chain_sum` or a file's name.
    """

    prompt_id: str
    text: str
    reference_answer: str
    choices: tuple[str, ...]
    source: str

    @property
    def normalised(self) -> str:
        """The text by which repeated questions are recognised, choices included."""
        return " ".join("\n".join((self.text, *self.choices)).casefold().split())


def content_id(text: str, answer: str) -> str:
    """A name for a question that has none."""
    return "q-" + hashlib.sha256(f"{text}\x00{answer}".encode()).hexdigest()[:16]


def row(question: Question, config: PromptSource, split: str) -> dict[str, Any]:
    """The question as a row of the prompts table."""
    messages = [{"role": "system", "content": config.system}] if config.system else []
    messages.append({"role": "user", "content": user_message(question, config.instruction)})
    return {
        "prompt_id": question.prompt_id,
        "task": config.task,
        "messages": messages,
        "reference_answer": question.reference_answer,
        "choices": list(question.choices),
        "split": split,
        "source": question.source,
    }


def user_message(question: Question, instruction: str) -> str:
    """Fill the instruction's template; choices without a place of their own follow the question."""
    options = "\n".join(f"{_letter(i)}) {text}" for i, text in enumerate(question.choices))
    asked = question.text
    if options and "{choices}" not in instruction:
        asked = f"{asked}\n{options}"
    values = {"question": asked, "choices": options}
    return _FIELD.sub(lambda match: values[match[1]], instruction)


def _letter(index: int) -> str:
    return _LETTERS[index] if index < len(_LETTERS) else str(index + 1)
