"""The data of the report's browser: a light row per prompt, and the texts in packed pieces.

Ten thousand prompts with eight responses each are some tens of megabytes. The rows are small
and read at once; a piece of texts is unpacked when one of its prompts is opened. Base64 holds
no character that HTML gives a meaning to, so no text can leave its element.
"""

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advdistill_core.evaluation.answers import by_question
from advdistill_core.report.gather import Group, Question, Row
from advdistill_core.report.metrics import outcome

CHUNK = 100  # prompts in a piece
_SNIPPET_CHARS = 90  # two lines of the list on a phone
_LETTERS = {"correct": "c", "wrong": "w", "unparsed": "u", "timeout": "t", "error": "e"}


@dataclass(frozen=True)
class Entry:
    """A prompt in the browser.

    Args:
        tags: what the filters look for.
        verdicts: a letter per response, upper case where truncated.
        detail: what is shown when it is opened.
    """

    id: str
    snippet: str
    tags: frozenset[str]
    verdicts: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class View:
    """A list of prompts to browse.

    Args:
        filters: (tag, label) each.
        num_kinds: how many of the first filters exclude each other, since a prompt is of one
            kind only.
        num_left_out: prompts that are not in the list.
    """

    name: str
    label: str
    filters: Sequence[tuple[str, str]]
    entries: Sequence[Entry]
    num_kinds: int
    num_left_out: int = 0

    def rows(self) -> dict[str, Any]:
        """Everything but the texts; tags as bits in the order of the filters."""
        bits = {tag: 1 << i for i, (tag, _) in enumerate(self.filters)}
        return {
            "name": self.name,
            "label": self.label,
            "filters": [
                {"label": label, "count": sum(tag in e.tags for e in self.entries)}
                for tag, label in self.filters
            ],
            "rows": [
                [e.id, e.snippet, sum(bits.get(t, 0) for t in e.tags), e.verdicts] for e in self.entries
            ],
            "num_kinds": self.num_kinds,
            "chunk": CHUNK,
            "num_left_out": self.num_left_out,
        }

    def chunks(self) -> Iterator[tuple[str, str]]:
        """Element id and base64 text of each piece."""
        for number, start in enumerate(range(0, len(self.entries), CHUNK)):
            details = [e.detail for e in self.entries[start : start + CHUNK]]
            # mtime 0: equal texts give equal bytes.
            packed = gzip.compress(json.dumps(details, separators=(",", ":")).encode(), 5, mtime=0)
            yield f"texts-{self.name}-{number}", base64.b64encode(packed).decode()


def train_view(groups: Sequence[Group], max_responses: int) -> View:
    """The training prompts with the teacher's responses; the first ones when there are too many."""
    filters = [
        ("mixed", "Mixed"),
        ("all_correct", "All correct"),
        ("all_wrong", "All wrong"),
        ("truncated", "Truncated"),
        ("unparsed", "Unparsed"),
        ("ungraded", "Not graded"),
        ("merged", "Merged duplicates"),
        ("disagreement", "Graders disagree"),
    ]
    entries: list[Entry] = []
    total = 0
    for group in groups:
        total += len(group.responses)
        if total > max_responses:
            break
        entries.append(_train_entry(group))
    return View("train", "Training prompts", filters, entries, 3, len(groups) - len(entries))


def _train_entry(group: Group) -> Entry:
    tags = {group.kind} | _response_tags(group.responses)
    if any(r["merged_into"] is not None for r in group.responses):
        tags.add("merged")
    if any(r.get("second") for r in group.responses):
        tags.add("disagreement")
    details = []
    for row in group.responses:
        shown = _response(row, "") | {"second": row.get("second")}
        shown |= {key: _round(row[key]) for key in ("reward", "advantage", "weight")}
        shown["merged_into"] = row["merged_into"]
        details.append(shown)
    return _entry(group.question, tags, group.responses, details)


def heldout_view(asked: Mapping[str, Question], before: Sequence[Row], after: Sequence[Row]) -> View:
    """The held-out questions with the student's answers before and after."""
    filters = [
        ("gained", "Gained"),
        ("lost", "Lost"),
        ("both_right", "Right both times"),
        ("both_wrong", "Wrong both times"),
        ("truncated", "Truncated"),
        ("unparsed", "Unparsed"),
        ("ungraded", "Not graded"),
    ]
    first, second = by_question(before), by_question(after)
    entries = []
    for question in asked.values():
        old, new = first.get(question.id, []), second.get(question.id, [])
        tags = _response_tags([*old, *new]) | ({outcome(old, new)} if old and new else set())
        details = [_response(r, "before") for r in old] + [_response(r, "after") for r in new]
        entries.append(_entry(question, tags, [*old, *new], details))
    return View("heldout", "Held-out questions", filters, entries, 4)


def _entry(question: Question, tags: set[str], rows: Sequence[Row], details: list[dict[str, Any]]) -> Entry:
    detail = {
        "system": question.system,
        "question": question.text,
        "reference": question.reference,
        "source": question.source,
        "responses": details,
    }
    letters = (
        _LETTERS[r["verdict"]].upper() if r["finish_reason"] == "length" else _LETTERS[r["verdict"]]
        for r in rows
    )
    return Entry(question.id, _snippet(question.text), frozenset(tags), "".join(letters), detail)


def _snippet(text: str) -> str:
    """A question in the list: whole, or its two ends, since many begin with the same instruction."""
    looked_at = 4 * _SNIPPET_CHARS
    start, end = (" ".join(part.split()) for part in (text[:looked_at], text[-looked_at:]))
    if len(text) <= looked_at and len(start) <= _SNIPPET_CHARS:
        return start
    half = _SNIPPET_CHARS // 2 - 2
    return f"{start[:half].rstrip()} … {end[-half:].lstrip()}"


def _response_tags(rows: Sequence[Row]) -> set[str]:
    tags = set()
    for row in rows:
        if row["finish_reason"] == "length":
            tags.add("truncated")
        if row["verdict"] == "unparsed":
            tags.add("unparsed")
        if row["verdict"] in ("timeout", "error"):
            tags.add("ungraded")
    return tags


def _response(row: Row, who: str) -> dict[str, Any]:
    return {
        "who": who,
        "sample": row["sample_id"],
        "text": row["text"],
        "verdict": row["verdict"],
        "extracted": row["extracted"],
        "tokens": row["num_tokens"],
        "truncated": row["finish_reason"] == "length",
    }


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
