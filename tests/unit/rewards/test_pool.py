"""The worker pool under answers that hang, crash and outgrow their memory."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from advdistill_core.config import RewardsConfig
from advdistill_core.errors import InputError
from advdistill_core.rewards import Answer, Graded, Grader, registry
from advdistill_core.rewards.pool import Job, Pool

pytestmark = pytest.mark.usefixtures("own_verifiers")


def _grader(num_workers: int = 1, timeout_s: float = 1.0, memory_bytes: int = 1 << 30) -> Grader:
    return Grader(RewardsConfig(num_workers=num_workers, timeout_s=timeout_s, memory_bytes=memory_bytes))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_hung_worker_is_replaced_and_the_queue_behind_it_goes_on() -> None:
    with _grader(num_workers=2) as grader:
        texts = ["60", *["0"] * 20, "61", *["0.01"] * 20]
        started = time.monotonic()
        graded = grader.grade([Answer("sleepy", str(i), text) for i, text in enumerate(texts)])
        assert time.monotonic() - started < 6
        expected = ["timeout" if text.startswith("6") else "correct" for text in texts]
        assert [g.verdict for g in graded] == expected
        assert len(grader.pool.worker_pids) == 2
        assert all(map(_alive, grader.pool.worker_pids))


def test_outgrown_memory_is_an_error() -> None:
    with _grader(timeout_s=30, memory_bytes=300 << 20) as grader:
        graded = grader.grade([Answer("hog", str(i), size) for i, size in enumerate(["10", "4000", "20"])])
        assert [g.verdict for g in graded] == ["correct", "error", "correct"]


def test_a_death_is_an_error_of_that_answer_only() -> None:
    texts = ["a", "b", "die", "c", "die", "d"]
    with _grader() as grader:
        graded = grader.grade([Answer("crash", str(i), text) for i, text in enumerate(texts)])
        assert [g.verdict for g in graded] == ["error" if text == "die" else "correct" for text in texts]
        assert len(grader.pool.worker_pids) == 1


def test_a_death_before_it_is_known_whose_it_is() -> None:
    """The worker dies at a glance, which only workers take in large batches."""
    pool = Pool(1, 5.0, 1 << 30, {})
    try:
        texts = ["a", "die", "b", "c"]
        jobs = [Job("answer", Answer("glance_crash", str(i), text)) for i, text in enumerate(texts)]
        verdicts = dict(pool.run(jobs))
        assert [verdicts[i].verdict for i in range(4)] == ["correct", "error", "correct", "correct"]
        assert len(pool.worker_pids) == 1
    finally:
        pool.close()


def test_an_exception_is_an_error_not_a_wrong_answer() -> None:
    with _grader() as grader:
        assert grader.grade([Answer("raises", "1", "x")]) == [Graded("error", "KeyError: 'x'")]


def test_a_verifier_that_returns_no_verdict_is_told_what_it_returned() -> None:
    with _grader() as grader:
        told = grader.grade(
            [Answer("odd", "1", text) for text in ("none", "tuple", "name", "five", "glance")]
        )
    assert [graded.verdict for graded in told] == ["error"] * 5
    assert told[0].extracted == "judge returned None, expected a Graded"
    assert "judge returned ('correct', 'x')" in str(told[1].extracted)
    assert "'right'" in str(told[2].extracted)
    assert "extracted=5" in str(told[3].extracted)
    assert told[4].extracted == "glance returned None, expected a Graded or a Part"


@pytest.mark.parametrize("truncated", [False, True])
def test_a_glance_that_fails_is_an_error_also_of_a_truncated_response(truncated: bool) -> None:
    """Which would be wrong: of these nothing is known."""
    with _grader() as grader:
        told = grader.grade([Answer("odd", "1", text, truncated) for text in ("raise", "glance")])
    assert told[0] == Graded("error", "KeyError: 'no such'")
    assert told[1] == Graded("error", "glance returned None, expected a Graded or a Part")


def test_a_second_opinion_that_is_no_verdict_is_none_and_costs_no_worker() -> None:
    with _grader() as grader:
        assert grader.grade([Answer("odd", "1", "five")])[0].verdict == "error"
        workers = grader.pool.worker_pids
        told = grader.second_opinions([Answer("odd", "1", text) for text in ("tuple", "other")])
        assert told == [None, Graded("wrong")]
        assert grader.pool.worker_pids == workers


def test_any_thread_may_grade() -> None:
    """math-verify's own limits raise off the main thread, which has made every reward 0."""
    results: dict[int, list[Graded]] = {}
    with _grader(num_workers=2, timeout_s=2) as grader:

        def work(number: int) -> None:
            items = [
                Answer("math", f"x+{number}", f"\\boxed{{{number}+x}}"),
                Answer("math", "1", "\\boxed{9^{9^{9^9}}}"),
            ]
            results[number] = grader.grade(items)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [[g.verdict for g in results[i]] for i in range(4)] == [["correct", "timeout"]] * 4


def test_workers_outlive_the_thread_that_started_them() -> None:
    with _grader() as grader:
        thread = threading.Thread(target=lambda: grader.grade([Answer("math", "x", "\\boxed{x+0}")]))
        thread.start()
        thread.join()
        pids = grader.pool.worker_pids
        assert grader.grade([Answer("math", "y", "\\boxed{y+0}")])[0].verdict == "correct"
        assert grader.pool.worker_pids == pids


def test_closing_ends_every_process_and_removes_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    grader = _grader(num_workers=2)
    grader.grade([Answer("sleepy", str(i), "0") for i in range(4)])
    pids = grader.pool.worker_pids
    assert len(pids) == 2
    assert list(scratch.iterdir())
    grader.close()
    deadline = time.monotonic() + 5
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_alive, pids))
    assert not list(scratch.iterdir())


def test_workers_die_with_the_process_that_wanted_them(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from advdistill_core.config import RewardsConfig\n"
        "from advdistill_core.rewards import Answer, Grader\n"
        "g = Grader(RewardsConfig(num_workers=1))\n"
        "g.grade([Answer('math', 'x', r'\\boxed{x+0}')])\n"
        "print(*g.pool.worker_pids, flush=True)\n"
        "sys.stdin.read()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids
    process.kill()
    process.wait()
    deadline = time.monotonic() + 8
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, pids))


def test_an_interrupted_grade_leaves_no_stale_answers() -> None:
    with _grader(timeout_s=5) as grader:
        stream = grader.pool.run(
            [Job("answer", Answer("sleepy", str(i), text)) for i, text in enumerate(("0", "1", "1"))]
        )
        assert next(stream)[1].verdict == "correct"
        stream.close()
        graded = grader.grade([Answer("sleepy", "2", "0"), Answer("math", "x", "\\boxed{x+0}")])
        assert [g.verdict for g in graded] == ["correct", "correct"]


def test_own_verifiers_are_found_and_named_in_the_identity() -> None:
    assert {"sleepy", "hog"} <= set(registry.names())
    assert registry.versions()["sleepy"] == "own-verifiers==1.2"


def test_a_built_in_name_cannot_be_taken_over() -> None:
    with _grader() as grader:
        assert grader.grade([Answer("math", "1", "\\boxed{1}")])[0].verdict == "correct"
    assert "math" not in registry.versions()


@pytest.mark.parametrize(
    ("task", "message"), [("broken", "Missing"), ("no_class", "subclass of Verifier"), ("maths", "math")]
)
def test_a_task_without_a_verifier_is_the_users_error(task: str, message: str) -> None:
    with _grader() as grader, pytest.raises(InputError, match=message):
        grader.grade([Answer(task, "1", "1")])
