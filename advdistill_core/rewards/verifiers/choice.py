"""Multiple choice: the letter of the option (A to Z), or the option's own text.

Where the letter stands, in this order: `<answer>` tags; the last box; the last "the answer
is (X)"; a line that is nothing but a letter or that begins with "X."; a short text with one
letter in it; the text of exactly one option. The *last* statement counts: a model may
change its mind, and text that merely discusses options is no answer.
"""

import re

from advdistill_core.rewards import extract
from advdistill_core.rewards.exact import canonical
from advdistill_core.rewards.types import Answer, Graded, Part
from advdistill_core.rewards.verifiers.base import Verifier

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DEFAULT_NUM_CHOICES = 10
_SHORT_CHARS = 80
_DECORATION = r"[\s*_`$({\[\\\"']{0,12}(?:(?:boxed|text|textbf|mathrm|mathbf)\s{0,2}\{[\s*$(\\]{0,6}){0,3}"
_LETTER = r"([A-Z])(?![A-Za-z'’+\-])"
# "The answer is A dog" and "the answer is I think": articles and pronouns, not letters.
_NO_WORD = r"(?![ \t]{1,9}(?!and\b|or\b|because\b|since\b|as\b|is\b|with\b|for\b)[a-z])"
# Every gap is bounded: a run of spaces that several parts could match costs their product.
_OF = r"(?:[ \t]{1,3}(?i:to|that|which|from|for|of|among|the|this|question)\b[^.:\n]{0,120}?)?"
_VERB = r"[ \t]{0,3}\*{0,2}[ \t]{0,3}(?i:is|are|would be|should be|must be)\b[ \t]{0,3}:?"
_LEAD = re.compile(
    rf"\b(?i:answer)(?i:[ \t]{{1,3}}(?:choice|option|letter))?(?:{_OF}{_VERB}|[ \t]{{0,3}}\*{{0,2}}[:=])"
    rf"|\b(?i:option|choice){_OF}{_VERB}"
    # Whatever "is (C)" is spoken of as the answer: letters in brackets are options.
    r"|\b(?:is|are|be)\b[ \t]{0,3}:?(?=[\s*]{0,4}\([A-Z]\))"
)
_AFTER_LEAD = re.compile(rf"{_DECORATION}{_LETTER}")
_LOWER_AFTER_LEAD = re.compile(r"\s{0,3}(?:\(([a-z])\)|([a-z])[.)]?[ \t]{0,3}$)", re.MULTILINE)
_MORE_LETTERS = re.compile(r"\)?\s{0,3}(?:(?:,|and\b|or\b|/|&)\s{0,3}){1,2}\(?([A-Z])(?![A-Za-z'’])\)?")
_WORD_AFTER = re.compile(_NO_WORD)
_ONLY_LETTER = re.compile(rf"{_DECORATION}([A-Z])[\s*_`$)}}\]\\.:\"']*", re.ASCII)
_LINE_START = re.compile(r"^[ \t*_]{0,4}\(?([A-Z])(?:\)|[.:](?=\s|\*|$))", re.MULTILINE)
_STANDALONE = re.compile(r"(?<![A-Za-z\\\d'’])([A-Z])(?![A-Za-z\d'’])")
_LETTER_LIST = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,|and|or|/|&)\s*\(?[A-Z]\)?)+")
_FORMULA_CHARS = 300
_SPACES = re.compile(r"\s+")


class ChoiceVerifier(Verifier):
    """Grades answers to multiple-choice questions, always at a glance."""

    def glance(self, answer: Answer) -> Graded | Part:
        letters = _allowed(answer)
        wanted = _reference_letter(answer, letters)
        text = extract.visible(answer.text, self.policy.ignore_think)
        found = find_choice(text, letters, answer.choices, self.policy.require_boxed)
        if found is None or wanted is None:
            return Graded("unparsed")
        return Graded("correct" if found == wanted else "wrong", found)

    def glance_reference(self, answer: Answer) -> bool | None:
        return _reference_letter(answer, _allowed(answer)) is not None


def find_choice(
    text: str, letters: str, choices: tuple[str, ...] = (), require_boxed: bool = False
) -> str | None:
    """The letter, or the letters joined by ", " where several are claimed at once, or None.

    Args:
        text: a response without its thoughts.
        letters: the letters of the options.
        choices: the texts of the options, if known.
    """
    tagged = extract.in_answer_tags(text)
    if tagged is not None:
        return _of_piece(tagged, letters, choices)
    boxed = extract.boxed_answer(text)
    if boxed is not None:
        found = _of_piece(", ".join(boxed[0]), letters, choices)
        if found or require_boxed:
            return found
    if require_boxed:
        return None
    return _stated(text, letters, choices) or _concluded(text, letters) or _by_text(text, letters, choices)


def _of_piece(piece: str, letters: str, choices: tuple[str, ...]) -> str | None:
    """The letter in a piece that is nothing but the answer."""
    piece = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r" \1 ", piece[:2000]).strip()
    only = _ONLY_LETTER.fullmatch(piece) or re.fullmatch(r"\(?([a-z])\)?\.?", piece)
    if only:
        return _if_allowed(only.group(1).upper(), letters)
    start = _LINE_START.match(piece)
    if start:
        return _if_allowed(start.group(1), letters)
    return _by_text(piece, letters, choices) or _stated(piece, letters, choices) or _list_of(piece, letters)


def _stated(text: str, letters: str, choices: tuple[str, ...]) -> str | None:
    """The letter of the last "the answer is (X)"."""
    for lead in reversed([*_LEAD.finditer(text)]):
        match = _AFTER_LEAD.match(text, lead.end())
        if match and not (match.group(1) in "AI" and not _WORD_AFTER.match(text, match.end())):
            found = [match.group(1)]
            end = match.end()
            while more := _MORE_LETTERS.match(text, end):
                found.append(more.group(1))
                end = more.end()
            if all(letter in letters for letter in found):
                return ", ".join(dict.fromkeys(found))
        lower = _LOWER_AFTER_LEAD.match(text, lead.end())
        if lower and (lower.group(1) or lower.group(2)).upper() in letters:
            return (lower.group(1) or lower.group(2)).upper()
        said = text[lead.end() : lead.end() + 400].split("\n", 1)[0]
        by_text = _by_text(said, letters, choices) if choices else None
        if by_text:
            return by_text
    return None


def _concluded(text: str, letters: str) -> str | None:
    """A letter that stands alone: at the start of a line, or in a short text."""
    stripped = text.strip()
    first = _LINE_START.match(stripped)
    starts = [m.group(1) for m in _LINE_START.finditer(stripped) if m.group(1) in letters]
    if first and first.group(1) in letters and len(set(starts)) == 1:
        return first.group(1)
    last_line = stripped.rsplit("\n", 1)[-1].strip()
    for line in (last_line, stripped):
        only = _ONLY_LETTER.fullmatch(line) if len(line) <= _SHORT_CHARS else None
        if only and only.group(1) in letters:
            return only.group(1)
    if len(stripped) <= _SHORT_CHARS:
        return _only_one(stripped, letters)
    return None


def _only_one(piece: str, letters: str) -> str | None:
    """The only letter that stands alone in a short text ("Because B is valid")."""
    found = {
        match.group(1)
        for match in _STANDALONE.finditer(piece)
        if match.group(1) in letters and (match.group(1) not in "AI" or _WORD_AFTER.match(piece, match.end()))
    }
    return found.pop() if len(found) == 1 else None


def _list_of(piece: str, letters: str) -> str | None:
    """Several letters and nothing else: "A, C"."""
    if not _LETTER_LIST.fullmatch(piece):
        return None
    found = re.findall("[A-Z]", piece)
    return ", ".join(dict.fromkeys(found)) if all(letter in letters for letter in found) else None


def _by_text(text: str, letters: str, choices: tuple[str, ...]) -> str | None:
    """The option whose text is the whole text, or the only one that the text ends with."""
    said = _plain(text)
    named = [(letter, _plain(choice)) for letter, choice in zip(letters, choices, strict=False)]
    equal = [letter for letter, choice in named if choice and choice == said]
    if not equal and len(text) <= _FORMULA_CHARS:
        formula = canonical(text)
        equal = [
            x for x, choice in zip(letters, choices, strict=False) if choice and canonical(choice) == formula
        ]
    if equal:
        return equal[0] if len(equal) == 1 else None
    ending = [
        (len(choice), letter) for letter, choice in named if len(choice) > 3 and said.endswith(" " + choice)
    ]
    return max(ending)[1] if ending else None


def _plain(text: str) -> str:
    return _SPACES.sub(" ", text.strip().strip("$*_`\"'").rstrip(". ")).casefold()


def _if_allowed(letter: str, letters: str) -> str | None:
    return letter if letter in letters else None


def _allowed(answer: Answer) -> str:
    return _LETTERS[: len(answer.choices) or _DEFAULT_NUM_CHOICES]


def _reference_letter(answer: Answer, letters: str) -> str | None:
    reference = answer.reference.strip()
    match = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", reference)
    if match and match.group(1).upper() in letters:
        return match.group(1).upper()
    wanted = _plain(reference)
    equal = [
        letter
        for letter, choice in zip(letters, answer.choices, strict=False)
        if wanted and _plain(choice) == wanted
    ]
    return equal[0] if len(equal) == 1 else None
