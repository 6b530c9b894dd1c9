"""No answer escapes its limit, harms a neighbour, shrinks the pool or runs anything."""

import json
import time
from pathlib import Path

import pytest

from advdistill_core.config import RewardsConfig
from advdistill_core.rewards import VERDICTS, Answer, Graded, Grader

from .hostile_cases import Hostile, hostile_cases

_LIMIT_S = 0.5
_SLACK_S = 0.5


def _config(num_workers: int = 2) -> RewardsConfig:
    return RewardsConfig(timeout_s=_LIMIT_S, memory_bytes=512 << 20, num_workers=num_workers)


def _answer(case: Hostile) -> Answer:
    return Answer(case.task, case.gold, case.text, choices=())


def _with_neighbours(cases: list[Hostile]) -> list[Answer]:
    """Each case between an answer that is right and one that is wrong, both for algebra."""
    items = []
    for i, case in enumerate(cases):
        items.append(Answer("math", f"x+{i}", f"\\boxed{{{i}+x}}"))
        items.append(_answer(case))
        items.append(Answer("math", f"x+{i}", f"\\boxed{{x-{i + 1}}}"))
    return items


def _check(cases: list[Hostile], graded: list[Graded]) -> None:
    for i, case in enumerate(cases):
        right, hostile, wrong = graded[3 * i : 3 * i + 3]
        assert (right.verdict, wrong.verdict) == ("correct", "wrong"), f"neighbours of {case.id}"
        assert hostile.verdict in VERDICTS
        assert hostile.verdict != "correct", case.id


def test_there_are_enough_cases(tmp_path: Path) -> None:
    cases = hostile_cases(str(tmp_path / "marker"))
    assert len({(case.task, case.text) for case in cases}) >= 200


def test_neighbours_keep_their_verdicts_and_nothing_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    cases = hostile_cases(str(marker))
    with Grader(_config()) as grader:
        graded = grader.grade(_with_neighbours(cases))
        _check(cases, graded)
        assert len(grader.pool.worker_pids) == 2, "the pool is not at full size"
        assert all(Path(f"/proc/{pid}").exists() for pid in grader.pool.worker_pids)
    assert not marker.exists(), "an answer was executed"


def test_a_timeout_is_a_verdict_of_its_own() -> None:
    with Grader(_config(1)) as grader:
        tower = grader.grade([Answer("math", "1", "\\boxed{9^{9^{9^{9}}}}")])[0]
        assert tower.verdict == "timeout"
        # The same worker slot grades on as if nothing had been.
        assert grader.grade([Answer("math", "x+1", "\\boxed{1+x}")])[0].verdict == "correct"


@pytest.mark.timeout(400)
def test_none_escapes_its_limit(tmp_path: Path) -> None:
    """Each case alone, by the clock. One that is late is measured again: the machine is shared."""
    with Grader(_config(1)) as grader:
        grader.grade(
            [Answer("math", "x", "\\boxed{x+0}"), Answer("json", "[1]", "[1]"), Answer("regex", "a", "a")]
        )
        late = []
        for case in hostile_cases(str(tmp_path / "marker")):
            taken_s = min(_time(grader, case), 1e9)
            for _ in range(2):
                if taken_s > _LIMIT_S + _SLACK_S:
                    taken_s = min(taken_s, _time(grader, case))
            if taken_s > _LIMIT_S + _SLACK_S:
                late.append(f"{case.id}: {taken_s:.2f} s")
    assert not late


def _time(grader: Grader, case: Hostile) -> float:
    started = time.monotonic()
    grader.grade([_answer(case)])
    return time.monotonic() - started


def test_hostile_inputs_of_others(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (shared_data / "verifier/hostile_inputs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    cases = [Hostile(row["id"], "math", row["gold"], row["prediction"]) for row in rows]
    expected = {row["id"]: row["expect"] for row in rows}
    with Grader(_config()) as grader:
        graded = grader.grade(_with_neighbours(cases))
        for i, case in enumerate(cases):
            assert graded[3 * i].verdict == "correct"
            assert graded[3 * i + 2].verdict == "wrong"
            if expected[case.id].startswith("not correct"):
                assert graded[3 * i + 1].verdict != "correct", case.id
        assert len(grader.pool.worker_pids) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.server
def test_the_same_from_submitted_prefect_tasks(tmp_path: Path) -> None:
    """Tasks run in threads of the flow's process, where signals cannot be used.

    Every third case: all of them are met above, and each that reaches its limit takes that long.
    """
    from prefect import flow, task
    from prefect.testing.utilities import prefect_test_harness

    marker = tmp_path / "marker"
    cases = hostile_cases(str(marker))[::3]
    items = _with_neighbours(cases)

    @task
    def grade(part: list[Answer]) -> list[list[str | None]]:
        with Grader(_config(1)) as grader:
            graded = grader.grade([Answer(*item) for item in part])
            assert len(grader.pool.worker_pids) == 1
        return [list(one) for one in graded]

    @flow
    def grade_all() -> list[list[str | None]]:
        half = len(items) // 6 * 3
        futures = [grade.submit(part) for part in (items[:half], items[half:])]
        return [row for future in futures for row in future.result()]

    with prefect_test_harness(server_startup_timeout=120):
        graded = [Graded(*row) for row in grade_all()]  # type: ignore[arg-type]
    _check(cases, graded)
    assert not marker.exists()
