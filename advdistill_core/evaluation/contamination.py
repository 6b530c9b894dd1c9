"""Do training texts repeat evaluation questions? Pure functions over plain text.

Three signs, from sure to likely:
- `exact`: the same question, apart from case and white space.
- `template`: the same question after masking every number.
- `ngram`: a run of 13 words in common, or 8-word runs that cover at least half of the question.
  A single run of 8 is not enough: clean word problems share phrases such as "how much money
  does she have left".

What more than `max_common` questions share, whatever numbers stand in it (an instruction, the
wording of a generated family), says nothing about any one of them, so it is ignored for
`ngram` and `template` and only counted. Equal questions are always found. The price: a question
that was multiplied into more than `max_common` variants passes for a family.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

SHORT, LONG = 8, 13
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Numbers joined by operators are one: `3 + 4` and `7 - 2 * 5` are the same sum but for its numbers.
_FORMULA = re.compile(r"#(?:\s*[-+*/×÷^()]\s*[-(]*#\)*)+")
_MIN_TEMPLATE_WORDS = 6

Kind = Literal["exact", "ngram", "template"]


@dataclass(frozen=True)
class Match:
    """A text that repeats an evaluation question.

    Args:
        row_id: the training text.
        question_id: the evaluation question.
        kind: the surest sign found.
        covered_frac: share (0 to 1) of the question's 8-word runs that the text holds.
        longest_words: length of the longest run in common (0 when below 8).
    """

    row_id: str
    question_id: str
    kind: Kind
    covered_frac: float
    longest_words: int


class QuestionIndex:
    """The evaluation questions, ready to be looked for in other texts.

    Args:
        questions: (id, text) pairs.
        background: other questions, such as the training prompts, that tell what is common.
        max_common: runs and templates of more questions than this are ignored.
        min_covered_frac: share of a question's 8-word runs that counts as repeating it.
    """

    def __init__(
        self,
        questions: Iterable[tuple[str, str]],
        background: Iterable[str] = (),
        max_common: int = 10,
        min_covered_frac: float = 0.5,
    ) -> None:
        questions = list(questions)
        self.min_covered_frac = min_covered_frac
        self._exact: dict[str, list[str]] = {}
        self._templates: dict[str, list[str]] = {}
        self._runs: dict[str, list[str]] = {}
        self._num_runs: Counter[str] = Counter()
        for question_id, text in questions:
            self._exact.setdefault(plain(text), []).append(question_id)
            if masked := template(text):
                self._templates.setdefault(masked, []).append(question_id)
            for run in set(runs(words(text))):
                self._runs.setdefault(run, []).append(question_id)
        templates = Counter({key: len(ids) for key, ids in self._templates.items()})
        masked_runs: Counter[str] = Counter()
        for _, text in questions:
            masked_runs.update({_masked(run) for run in runs(words(text))})
        for text in background:
            templates[template(text)] += 1
            masked_runs.update({_masked(run) for run in runs(words(text))})
        common = {key: ids for key, ids in self._templates.items() if templates[key] > max_common}
        self.num_common_templates = len(common)
        self.num_questions_of_common_templates = sum(map(len, common.values()))
        self._templates = {k: ids for k, ids in self._templates.items() if k not in common}
        self._runs = {run: ids for run, ids in self._runs.items() if masked_runs[_masked(run)] <= max_common}
        for ids in self._runs.values():
            self._num_runs.update(ids)

    def find(self, row_id: str, text: str) -> list[Match]:
        """The questions that a text repeats, at most once each, in order of their id."""
        kinds: dict[str, Kind] = {}
        covered, longest = self._overlap(text)
        for question_id, count in covered.items():
            enough = count >= self.min_covered_frac * self._num_runs[question_id] and count > 1
            if enough or longest[question_id] >= LONG:
                kinds[question_id] = "ngram"
        for question_id in self._templates.get(template(text), ()):
            kinds[question_id] = "template"
        for question_id in self._exact.get(plain(text), ()):
            kinds[question_id] = "exact"
        return [
            Match(
                row_id,
                question_id,
                kind,
                covered[question_id] / self._num_runs[question_id] if covered[question_id] else 0.0,
                longest.get(question_id, 0),
            )
            for question_id, kind in sorted(kinds.items())
        ]

    def _overlap(self, text: str) -> tuple[Counter[str], dict[str, int]]:
        """By question: distinct 8-word runs in common, and the longest run in words.

        A run of n words shows as n - 7 consecutive runs of eight.
        """
        covered: Counter[str] = Counter()
        longest: dict[str, int] = {}
        streak: dict[str, int] = {}
        seen: set[str] = set()
        for run in runs(words(text)):
            ids = self._runs.get(run, ())
            streak = {question_id: streak.get(question_id, SHORT - 1) + 1 for question_id in ids}
            for question_id, length in streak.items():
                longest[question_id] = max(longest.get(question_id, 0), length)
            if run not in seen:
                seen.add(run)
                covered.update(ids)
        return covered, longest


def find_all(index: QuestionIndex, rows: Iterable[tuple[str, str]]) -> Iterator[Match]:
    """The matches of many (id, text) rows."""
    for row_id, text in rows:
        yield from index.find(row_id, text)


def words(text: str) -> list[str]:
    """Words and numbers, lower case, without punctuation."""
    return _WORD.findall(text.casefold())


def runs(tokens: list[str], n: int = SHORT) -> Iterator[str]:
    """Every run of n words, as one string."""
    return (" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def plain(text: str) -> str:
    """A text apart from case and white space; operators and punctuation stay."""
    return " ".join(text.casefold().split())


def template(text: str) -> str:
    """A text with every number or sum of numbers masked; empty when too few words are left."""
    masked = _FORMULA.sub("#", plain(_NUMBER.sub("#", text)))
    return masked if len(_WORD.findall(masked)) >= _MIN_TEMPLATE_WORDS else ""


def _masked(run: str) -> str:
    return _NUMBER.sub("#", run)
