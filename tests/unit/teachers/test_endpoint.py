"""Endpoints that misbehave, over real HTTP: nothing lost, nothing asked twice, no key told."""

import json
import logging
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from endpoint_fixture import KEY, ask, completion, generate, good, settings

from advdistill_core.config import TeacherConfig
from advdistill_core.errors import ErrorRateError, InputError, StageError
from advdistill_core.progress import Event
from advdistill_core.teachers import Sampling, endpoint
from advdistill_core.teachers.backends import precheck
from advdistill_core.teachers.completion import retry_after_s
from advdistill_core.teachers.protocol import Request


def test_several_samples_come_from_one_request(serve: Any) -> None:
    server = serve(good)
    found = ask(endpoint.Endpoint(settings(server, api_key_env="TEST_KEY")), 5, 4)
    assert len(server.bodies) == 5
    body = next(b for b in server.bodies if b["messages"][-1]["content"] == "q2")
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "q2"}], "n": 4, "seed": 200,
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 20,
    }  # fmt: skip
    assert {r.text for (i, _), r in found.items() if i == 2} == {f"q2 -> 200.{s}" for s in range(4)}
    assert sum(r.num_tokens for (i, _), r in found.items() if i == 2) == 28
    assert set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize("kind", ["one choice", "status 400", "status 422"])
def test_an_endpoint_without_n_is_found_out(serve: Any, kind: str) -> None:
    def behaviour(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if body.get("n", 1) > 1 and kind != "one choice":
            return int(kind.split()[1]), {}, b'{"error": "n must be 1"}'
        return 200, {}, completion(body, n=1)

    server = serve(behaviour)
    found = ask(endpoint.Endpoint(settings(server, concurrency=1)), 6, 3)
    assert all(r.finish_reason == "stop" for r in found.values())
    # Each sample by its own request with its own seed; n was tried once per request under way.
    assert found[4, 2].text == "q4 -> 402.0"
    assert len(server.bodies) <= 6 * 3 + 6


def test_too_many_choices_are_cut(serve: Any) -> None:
    server = serve(lambda body, number: (200, {}, completion(body, n=5)))
    found = ask(endpoint.Endpoint(settings(server)), 3, 2)
    assert len(server.bodies) == 3
    assert found[0, 1].num_tokens > 0


pytestmark = pytest.mark.usefixtures("short_waits")

FAILURES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "429": (429, {}, b""),
    "429 with a wait": (429, {"retry-after": "0.05"}, b""),
    "429 with nonsense": (429, {"retry-after": "soon"}, b""),
    "500": (500, {}, b"oops"),
    "503": (503, {}, b""),
    "cut": (0, {}, b""),
    "torn JSON": (200, {}, b'{"choices": [{"mess'),
    "no object": (200, {}, b"[]"),
    "null choices": (200, {}, b'{"choices": null}'),
    "no choice": (200, {}, b'{"choices": []}'),
    "no message": (200, {}, b'{"choices": [{"text": "x"}]}'),
    "content of another type": (200, {}, b'{"choices": [{"message": {"content": 5}}]}'),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_failures_that_pass_are_tried_again(serve: Any, kind: str) -> None:
    def behaviour(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return FAILURES[kind] if number % 3 == 0 else (200, {}, completion(body))

    server = serve(behaviour)
    found = ask(endpoint.Endpoint(settings(server, concurrency=4)), 8, 2)
    assert all(r.finish_reason == "stop" for r in found.values())
    answered = sum(number % 3 != 0 for number in range(len(server.bodies)))
    assert answered == 8, "something was asked for again after it had been answered"


def test_a_wait_that_is_asked_for_is_kept(serve: Any) -> None:
    times: list[float] = []

    def behaviour(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        times.append(time.monotonic())
        return (429, {"retry-after": "0.6"}, b"") if number == 0 else (200, {}, completion(body))

    ask(endpoint.Endpoint(settings(serve(behaviour))), 1, 1)
    assert times[1] - times[0] >= 0.6


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [("1.5", 1.5, 1.5), ("-3", 0, 0), ("1e9", 600, 600), ("date", 25, 30), ("past", 0, 0)],
)
def test_a_wait_may_be_told_as_seconds_or_as_a_date(told: str, least: float, most: float) -> None:
    dates = {"date": timedelta(seconds=30), "past": timedelta(days=-1)}
    if told in dates:
        told = format_datetime(datetime.now(UTC) + dates[told], usegmt=True)
    found = retry_after_s(httpx.Response(429, headers={"retry-after": told}))
    assert found is not None
    assert least <= found <= most


@pytest.mark.parametrize(
    "told", [None, "", "soon", "nan", "Wed, 21 Oct", "Mon, 01 Jan 2024 00:00:00 +99999999999999"]
)
def test_no_wait_is_told(told: str | None) -> None:
    headers = {} if told is None else {"retry-after": told}
    assert retry_after_s(httpx.Response(429, headers=headers)) is None


def test_requests_at_once_are_bounded_and_shrink_when_refused(serve: Any) -> None:
    def slow(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.03)
        return 200, {}, completion(body)

    server = serve(slow)
    ask(endpoint.Endpoint(settings(server, concurrency=5)), 30, 1)
    assert server.most_under_way == 5

    def refusing(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        with crowded.lock:
            too_many = crowded.under_way > 2
        time.sleep(0.02)
        return (429, {"retry-after": "0.01"}, b"") if too_many else (200, {}, completion(body))

    crowded = serve(refusing)
    ask(endpoint.Endpoint(settings(crowded, concurrency=16, max_retries=30)), 60, 1)
    assert len(crowded.bodies) < 60 * 2.5  # without shrinking nearly every request is refused


def test_a_hanging_request_is_given_up_and_repeated(serve: Any) -> None:
    def behaviour(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number == 0:
            time.sleep(3)
        return 200, {}, completion(body)

    started = time.monotonic()
    ask(endpoint.Endpoint(settings(serve(behaviour), timeout_s=0.5)), 3, 1)
    assert time.monotonic() - started < 2.5


def test_what_fails_for_good_is_recorded(serve: Any) -> None:
    def behaviour(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        bad = body["messages"][-1]["content"] == "q1"
        return (500, {}, b"") if bad else (200, {}, completion(body))

    server = serve(behaviour)
    found = ask(endpoint.Endpoint(settings(server, max_retries=2)), 3, 2)
    assert {key for key, r in found.items() if r.finish_reason == "error"} == {(1, 0), (1, 1)}
    asked = Counter(body["messages"][-1]["content"] for body in server.bodies)
    assert asked["q1"] == 3


def test_a_failure_outside_the_requests_is_no_end(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that no header can carry must not look like a teacher without answers."""
    monkeypatch.setenv("BAD_KEY", "sk\u2013abc")
    with pytest.raises(UnicodeEncodeError):
        ask(endpoint.Endpoint(settings(serve(good), api_key_env="BAD_KEY")), 1, 1)


def test_an_address_with_a_secret_is_refused() -> None:
    for address in ("http://user:secret@host/v1", "http://host/v1?key=secret"):
        config = TeacherConfig.model_validate({"backend": "openai", "model": "m", "base_url": address})
        with pytest.raises(InputError) as caught:
            endpoint.precheck(config)
        assert "secret" not in str(caught.value)


def test_reasons_and_empty_texts(serve: Any) -> None:
    def behaviour(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        reasons = {"q0": "length", "q1": "content_filter", "q2": "stop"}
        choice = {"message": {"content": None}, "finish_reason": reasons[body["messages"][-1]["content"]]}
        return 200, {}, json.dumps({"choices": [choice]}).encode()

    found = ask(endpoint.Endpoint(settings(serve(behaviour))), 3, 1)
    assert [found[i, 0].finish_reason for i in range(3)] == ["length", "error", "stop"]
    assert found[2, 0].text == ""


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "correct TEST_KEY"), (403, "correct TEST_KEY"), (404, "teacher.base_url")]
)
def test_a_wrong_key_or_model_fails_at_once_and_does_not_tell_the_key(
    serve: Any, status: int, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(lambda body, number: (status, {}, b"no"))
    with pytest.raises(StageError, match=str(status)) as caught:
        ask(endpoint.Endpoint(settings(server, api_key_env="TEST_KEY")), 50, 1)
    assert len(server.bodies) <= 32
    assert remedy in str(caught.value)
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_asking_again_is_said_while_nothing_comes(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_SILENCE_S", 0.1)
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_S", 1.0)
    server = serve(lambda body, number: (503, {}, b"") if number == 0 else (200, {}, completion(body)))
    told: list[str] = []
    assert len(ask(endpoint.Endpoint(settings(server), told.append), 1, 1)) == 1
    assert told
    assert set(told) == {f"no response for a while, asking again: status 503 at {server.url}"}
    told.clear()
    slow = serve(lambda body, number: (time.sleep(0.3), (200, {}, completion(body)))[1])
    assert len(ask(endpoint.Endpoint(settings(slow), told.append), 1, 1)) == 1
    assert not told  # slow is not failing


def test_a_caller_that_stops_listening_stops_the_requests(serve: Any) -> None:
    def slow(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.05)
        return 200, {}, completion(body)

    server = serve(slow)
    teacher = endpoint.Endpoint(settings(server, concurrency=2))
    requests = [Request(i, teacher.render([{"role": "user", "content": "q"}]), ((0, i),)) for i in range(40)]
    responses: Any = teacher.generate(requests, Sampling())
    next(responses)
    responses.close()
    time.sleep(0.3)  # what was on its way when the caller stopped
    asked = len(server.bodies)
    time.sleep(0.3)
    assert len(server.bodies) == asked < 10
    assert "endpoint" not in {thread.name for thread in threading.enumerate()}


def test_settings_are_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"teacher\.base_url"):
        precheck(TeacherConfig(backend="openai", base_url="host/v1"))
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(InputError, match="TEST_KEY"):
        precheck(TeacherConfig(backend="openai", base_url="http://host/v1", api_key_env="TEST_KEY"))
    with pytest.raises(ValueError, match="base_url is missing"):
        TeacherConfig(backend="openai")
    with pytest.raises(ValueError, match="concurrency would be ignored"):
        TeacherConfig(concurrency=3)
    with pytest.raises(ValueError, match="batch_size would be ignored"):
        TeacherConfig(backend="openai", base_url="http://host/v1", batch_size=3)


# -- the stage ----------------------------------------------------------------------------


def test_an_interrupted_stage_asks_only_for_what_is_missing(serve: Any, tmp_path: Path) -> None:
    server = serve(good)

    def stop_in_the_second_shard(event: Event) -> None:
        if event.stage == "generate" and event.done > 16:
            raise StageError("stop")

    with pytest.raises(StageError, match="stop"):
        generate(tmp_path, server, stop_in_the_second_shard)
    journals = sorted(tmp_path.glob("generate/*/work/responses/*.jsonl"))
    kept = sum(len(path.read_bytes().split(b"\n\n")) for path in journals)
    kept += sum(pq.read_metadata(path).num_rows for path in tmp_path.glob("generate/*/work/*.parquet"))
    assert 16 <= kept < 30
    with open(max(journals, key=lambda path: path.stat().st_mtime), "ab") as file:
        file.write(b'0123456789abcdef {"prompt_id": "torn')
    before = len(server.bodies)
    artifact = generate(tmp_path, server)
    rows = artifact.table().to_pylist()
    assert len({(r["prompt_id"], r["sample_id"]) for r in rows}) == len(rows) == 30
    assert all(r["finish_reason"] == "stop" for r in rows)
    assert sum(body.get("n", 1) for body in server.bodies[before:]) == 30 - kept
    assert artifact.manifest.outcome == "resumed"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_failed_requests_are_bounded_and_asked_again_next_time(serve: Any, tmp_path: Path) -> None:
    broken = True

    def behaviour(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return (500, {}, b"") if broken and number % 2 else (200, {}, completion(body))

    server = serve(behaviour)
    with pytest.raises(ErrorRateError):
        generate(tmp_path, server, max_retries=0, max_error_frac=0.1)
    broken = False
    rows = generate(tmp_path, server, max_retries=0, max_error_frac=0.1).table().to_pylist()
    assert len(rows) == 30
    assert {r["finish_reason"] for r in rows} == {"stop"}
    assert len(server.bodies) <= 10 + 4  # a shard of failures at most, then only what was missing


def test_the_address_does_not_decide_the_result(serve: Any, tmp_path: Path) -> None:
    one, two = serve(good), serve(good)
    first = generate(tmp_path, one)
    again = generate(tmp_path, two, concurrency=7)
    assert first.manifest.fingerprint == again.manifest.fingerprint
    assert two.bodies == []
