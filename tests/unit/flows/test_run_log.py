"""The log of a run in the UI: one line of an error that was foreseen, all of one that was not."""

import logging

import pytest

from advdistill_core.errors import InputError
from flows import run_log  # the package, which is imported wherever a flow runs, installs it

ERROR = InputError("teacher.model", "smollm", "a folder", "Did you mean smollm2?")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def errors(self) -> list[str]:
        return [self.format(record) for record in self.records if record.levelno >= logging.ERROR]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    handler = Kept()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        assert any(isinstance(found, run_log.OneLine) for found in logger.filters)
        monkeypatch.setattr(logger, "handlers", [handler])
    return handler


def told(logger: logging.Logger, error: Exception) -> None:
    try:
        raise error
    except Exception as raised:
        logger.exception("Encountered exception during execution: %r", raised)


def test_an_error_that_was_foreseen_is_one_line_once(kept: Kept) -> None:
    for name in ("prefect.task_runs", "prefect.flow_runs", "prefect.flow_runs"):
        told(logging.getLogger(name), ERROR)
    assert kept.errors() == [str(ERROR)]
    told(logging.getLogger("prefect.flow_runs"), InputError("teacher.k", 0, "1 or more"))
    assert len(kept.errors()) == 2


def test_another_error_is_told_in_full(kept: Kept) -> None:
    told(logging.getLogger("prefect.flow_runs"), KeyError("lost"))
    (text,) = kept.errors()
    assert "Traceback" in text
    assert "KeyError: 'lost'" in text


def test_another_sentence_about_the_error_stays(kept: Kept) -> None:
    try:
        raise ERROR
    except InputError:
        logging.getLogger("prefect.flow_runs").exception("An error was encountered while running a hook")
    assert kept.errors() == ["An error was encountered while running a hook"]


def test_all_of_it_is_there_for_those_who_debug(kept: Kept) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    logger.setLevel(logging.DEBUG)
    told(logger, InputError("teacher.k", 0, "1 or more"))
    logger.setLevel(logging.NOTSET)
    assert "Traceback" in kept.errors()[0]
