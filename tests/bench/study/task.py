"""The study's questions: chains of additions and subtractions, solved in written steps.

A question is `37+5-3`. What teacher and student know beforehand has solutions of three styles:
running results (`37+5=42`, newline, `42-3=39`), the whole chain rewritten at every step
(`37+5-3=42-3`, newline, `42-3=39`), and the bare answer (`39`). So responses with the same
verdict differ, and some are right by luck, as a real teacher's are.

With `choices` 3 the answer is the total's remainder by 3, as if one of three were to be chosen: written
steps end in a line such as `19=1`, and a bare answer is right in a third of all cases by luck.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

#: The vocabulary: each is one token, so that a step of the chain is one fact to know.
LARGEST = 39
SIGNS = [*"+-=\n", " plus ", " minus ", *map(str, range(LARGEST + 1))]
_SPECIAL = ("<pad>", "<unk>", "<q>", "<a>", "<end>")
_TEMPLATE = "{% for m in messages %}<q>{{ m['content'] }}{% endfor %}<a>"
STYLES = {"running": 0.5, "rewritten": 0.3, "bare": 0.2}  # shares of the solutions


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    Args:
        terms: least and most numbers in the chain.
        largest: all results in between lie in 0 to this, and so does the first number.
        operand: the other numbers lie in 1 to this.
        words: ` plus ` and ` minus ` in place of signs.
        choices: 0, or so many answers there are, of which a bare one is easily right by luck.
    """

    terms: tuple[int, int]
    largest: int = 29
    operand: int = 9
    words: bool = False
    choices: int = 0


TRAINED = Kind((3, 4))
#: The sets that students are tested on; all but the first lie outside what is distilled.
SETS = {
    "same": TRAINED,
    "more terms": Kind((5, 6)),
    "larger numbers": Kind((3, 4), LARGEST),
    "other words": Kind((3, 4), words=True),
}


def draw(kind: Kind, r: random.Random) -> tuple[str, list[int]]:
    """A question, and its numbers: the first as it is, the others with their sign."""
    value = r.randint(1, kind.largest)
    question, numbers = str(value), [value]
    for _ in range(r.randint(*kind.terms) - 1):
        plus = value < kind.operand or (value <= kind.largest - kind.operand and r.random() < 0.5)
        number = r.randint(1, kind.operand)
        question += f"{(' plus ' if plus else ' minus ') if kind.words else '+-'[not plus]}{number}"
        numbers.append(number if plus else -number)
        value += numbers[-1]
    return question, numbers


def answer(numbers: list[int], choices: int) -> str:
    """The total, or its remainder by the number of choices."""
    return str(sum(numbers) % choices if choices else sum(numbers))


def solution(numbers: list[int], style: str, choices: int = 0) -> str:
    """A right solution in one of the styles."""
    if style == "bare":
        return answer(numbers, choices)
    lines = []
    for i in range(1, len(numbers)):
        value, rest = sum(numbers[:i]), numbers[i:]
        if style == "running":
            lines.append(f"{_chain([value, rest[0]])}={value + rest[0]}")
        else:
            lines.append(f"{_chain([value, *rest])}={_chain([value + rest[0], *rest[1:]])}")
    if choices:
        lines.append(f"{sum(numbers)}={answer(numbers, choices)}")
    return "\n".join(lines)


def _chain(numbers: list[int]) -> str:
    return str(numbers[0]) + "".join(f"{number:+d}" for number in numbers[1:])


def questions(kind: Kind, count: int, seed: str, without: set[str]) -> list[dict[str, str]]:
    """Distinct questions as rows of a JSONL file; `without` holds those that must not occur."""
    r = random.Random(seed)
    found: list[dict[str, str]] = []
    while len(found) < count:
        question, numbers = draw(kind, r)
        if question not in without:
            without.add(question)
            found.append({"question": question, "answer": answer(numbers, kind.choices)})
    return found


def corpus(
    count: int, seed: str, without: set[str], choices: int = 0, bare: float = STYLES["bare"]
) -> Iterator[tuple[str, str]]:
    """Questions of every kind with solutions, for what teacher and student know beforehand.

    Args:
        bare: share of the bare answers; the other styles keep their proportion.
    """
    r = random.Random(seed)
    written = STYLES["running"] + STYLES["rewritten"]
    scale = (1 - bare) / written if bare != STYLES["bare"] else 1.0
    shares = [STYLES["running"] * scale, STYLES["rewritten"] * scale, bare]
    kinds = [TRAINED] * 4 + [Kind((2, 2))] * 2 + [Kind((5, 6)), Kind((2, 4), LARGEST)]
    kinds += [Kind((2, 4), words=True)] * 2
    while count:
        question, numbers = draw(r.choice(kinds), r)
        if question not in without:
            count -= 1
            (style,) = r.choices([*STYLES], shares)
            yield question, solution(numbers, style, choices)


def asked(kind: Kind, choices: int) -> Kind:
    """The kind of question with so many choices."""
    return replace(kind, choices=choices)


def build_model(folder: Path, seed: int, hidden_size: int, num_layers: int) -> None:
    """Write an untrained Llama (rotary positions) with the task's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(_SPECIAL) + len(SIGNS),
        hidden_size=hidden_size,
        intermediate_size=7 * hidden_size // 4,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=2,
        eos_token_id=4,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _tokenizer() -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *SIGNS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" plus | minus |\d+|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in _SPECIAL])
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        bos_token="<q>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=_TEMPLATE,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
