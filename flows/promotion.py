"""The champion of a line of students: one pointer file with its whole history.

Pointer and history are one JSON document that is replaced whole, so a promotion happened or
did not; nobody sees half of one.
"""

import re
import time
from contextlib import AbstractContextManager
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from advdistill_core.errors import InputError
from advdistill_core.store import ArtifactRef, Store

FOLDER = "champions"
_NAME = re.compile(r"[\w.-]{1,80}")


class Difference(BaseModel):
    """Candidate minus champion on the same questions (-1 to 1), with its interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float
    num_questions: int


class Champion(BaseModel):
    """A promoted student and what it was promoted on."""

    model_config = ConfigDict(frozen=True)

    student: ArtifactRef
    selection: ArtifactRef
    difference: Difference | None = None
    run_id: str = ""
    by: str = ""
    refs: list[ArtifactRef] = []


class Entry(BaseModel):
    """A line of the history."""

    model_config = ConfigDict(frozen=True)

    at: float
    action: Literal["promote", "rollback"]
    by: str
    champion: int | None


class Line(BaseModel):
    """The pointer, every champion there was, and what was decided against.

    `current` counts into `champions`; None before the first promotion. `rejected` holds
    content hashes of students that must not come again: refused, or rolled back.
    `considered` is the content hash of the selection that was last decided on.
    """

    current: int | None = None
    champions: list[Champion] = []
    history: list[Entry] = []
    rejected: list[str] = []
    considered: str = ""

    @property
    def champion(self) -> Champion | None:
        return None if self.current is None else self.champions[self.current]


def read_line(store: Store, name: str) -> Line:
    """The state of a line of students; an empty one if there was no promotion yet.

    Raises:
        InputError: no line can have this name, or its file cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "champion", name, "a name of letters, digits, . _ and -", "`advdistill champions` lists them."
        )
    try:
        return Line.model_validate_json(store.files.read(_path(name)))
    except FileNotFoundError:
        return Line()
    except ValidationError as error:
        raise InputError(
            f"champion {name}", str(error), "a readable pointer file", f"Look at {_path(name)}."
        ) from error


def promote(store: Store, name: str, champion: Champion) -> Line:
    """Make a student the champion."""
    with _locked(store, name):
        line = read_line(store, name)
        line.champions.append(champion)
        line.considered = champion.selection.content_hash
        return _point(store, name, line, len(line.champions) - 1, "promote", champion.by)


def rollback(store: Store, name: str, by: str) -> Line:
    """Return to the champion before this one, for good: it will not be promoted again.

    Raises:
        InputError: there is no champion.
    """
    if read_line(store, name).champion is None:  # before a lock is made for it
        raise InputError("champion", name, "a line with a champion", "There is nothing to roll back.")
    with _locked(store, name):
        line = read_line(store, name)
        if line.champion is None or line.current is None:
            raise InputError("champion", name, "a line with a champion", "There is nothing to roll back.")
        line.rejected.append(line.champion.student.content_hash)
        before = line.current - 1
        while before >= 0 and line.champions[before].student.content_hash in line.rejected:
            before -= 1
        return _point(store, name, line, before if before >= 0 else None, "rollback", by)


def refuse(store: Store, name: str, student: ArtifactRef, selection: ArtifactRef) -> Line:
    """Remember that a student was not good enough, so that it is not tried again."""
    with _locked(store, name):
        line = read_line(store, name)
        line.considered = selection.content_hash
        if student.content_hash not in line.rejected:
            line.rejected.append(student.content_hash)
        _write(store, name, line)
        return line


def lines(store: Store) -> dict[str, Line]:
    """All lines of students under a root."""
    names = [name.removesuffix(".json") for name in store.files.names(FOLDER)]
    return {name: read_line(store, name) for name in names}


def _point(
    store: Store, name: str, line: Line, to: int | None, action: Literal["promote", "rollback"], by: str
) -> Line:
    line.current = to
    line.history.append(Entry(at=time.time(), action=action, by=by, champion=to))
    _write(store, name, line)
    return line


def _write(store: Store, name: str, line: Line) -> None:
    store.files.write(_path(name), line.model_dump_json(indent=1).encode())


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.json"


def _locked(store: Store, name: str) -> AbstractContextManager[None]:
    return store.lock(FOLDER, name)
