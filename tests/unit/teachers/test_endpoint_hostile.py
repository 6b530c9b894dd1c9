"""Everything wrong at once: complete or a clear failure, counts exact, no key anywhere."""

import json
import logging
import random
import re
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint_fixture import KEY, Server, ask, completion, generate, settings

from advdistill_core.errors import ErrorRateError, StageError
from advdistill_core.teachers import Sampling, endpoint
from advdistill_core.teachers.protocol import NO_SEED, Request

pytestmark = pytest.mark.usefixtures("short_waits")

Answer = tuple[int, dict[str, str], bytes]


def hang(body: dict[str, Any], n: int) -> Answer:
    time.sleep(1.0)
    return 200, {}, completion(body)


def empty(body: dict[str, Any], n: int) -> Answer:
    choices = [{"message": {"content": ""}, "finish_reason": "stop"}] * n
    return 200, {}, json.dumps({"choices": choices, "usage": {"completion_tokens": n}}).encode()


def twins(body: dict[str, Any], n: int) -> Answer:
    """Ids and places repeat."""
    document = json.loads(completion(body))
    for choice in document["choices"]:
        choice["index"] = 0
    return 200, {}, json.dumps({**document, "id": "chatcmpl-1"}).encode()


KINDS: dict[str, Callable[[dict[str, Any], int], Answer]] = {
    "storm": lambda body, n: (429, {"retry-after": "0.05"}, b"slow down"),
    "500": lambda body, n: (500, {}, b"<html>oops</html>"),
    "503": lambda body, n: (503, {"retry-after": "-3"}, b""),
    "hang": hang,
    "cut before": lambda body, n: (0, {}, b""),
    "cut within": lambda body, n: (200, {"x-cut": "yes"}, completion(body)),
    "torn": lambda body, n: (200, {}, completion(body)[:-9]),
    "html": lambda body, n: (200, {}, b"<html>maintenance</html>"),
    "null": lambda body, n: (200, {}, b"null"),
    "none": lambda body, n: (200, {}, completion(body, n=0)),
    "fewer": lambda body, n: (200, {}, completion(body, n=max(1, n - 1))),
    "more": lambda body, n: (200, {}, completion(body, n=n + 2)),
    "empty": empty,
    "twins": twins,
}


class Hostile:
    """Mistreats two requests of three, each kind in turn; counts the samples it gives out."""

    def __init__(self, seed: int) -> None:
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.kinds: Counter[str] = Counter()
        self.storm_until = 0.0
        self.deck: list[str] = []

    def __call__(self, body: dict[str, Any], number: int) -> Answer:
        n = body.get("n", 1)
        with self.lock:
            if time.monotonic() < self.storm_until:
                kind = "storm"
            else:
                if not self.deck:
                    self.deck = [*KINDS, *["good"] * (len(KINDS) // 2)]
                    self.random.shuffle(self.deck)
                kind = self.deck.pop()
                self.storm_until = time.monotonic() + 0.1 if kind == "storm" else 0.0
            self.kinds[kind] += 1
        return KINDS.get(kind, lambda body, n: (200, {}, completion(body)))(body, n)


@pytest.mark.parametrize("seed", range(3))
def test_a_stage_survives_a_hostile_endpoint(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any, seed: int
) -> None:
    caplog.set_level(logging.DEBUG)
    hostile = Hostile(seed)
    server = serve(hostile)
    artifact = generate(tmp_path, server, num_train=24, k=4, concurrency=8, timeout_s=0.6, max_retries=60)
    rows = artifact.table().to_pylist()
    assert len(rows) == len({(r["prompt_id"], r["sample_id"]) for r in rows}) == 96
    assert {r["finish_reason"] for r in rows} == {"stop"}
    assert set(hostile.kinds) == {*KINDS, "good"}
    # No text belongs to another question, and what was asked is what is recorded.
    asked = {(b["messages"][-1]["content"], b["seed"]) for b in server.bodies}
    for row in rows:
        question, _, rest = row["text"].partition(" -> ")
        assert not row["text"] or (question, int(rest.split(".")[0])) in asked
        assert not row["text"] or int(rest.split(".")[0]) == row["seed"]
    assert artifact.manifest.tokens["generated"] == sum(r["num_tokens"] for r in rows)
    assert artifact.manifest.metrics["error_frac"] == 0
    check_no_key(tmp_path, caplog, capfd)


def test_a_storm_without_end_is_a_clear_failure(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(lambda body, number: (429, {"retry-after": "0.01"}, KEY.encode()))
    with pytest.raises(ErrorRateError, match=r"failed responses(.|\n)*teacher\.max_error_frac") as caught:
        generate(tmp_path, server, max_retries=2, concurrency=4)
    assert KEY not in str(caught.value)
    assert "status 429 at http://127.0.0.1" in str(caught.value)
    assert len(server.bodies) <= 10 * 3  # three attempts of each prompt at most
    check_no_key(tmp_path, caplog, capfd)


def test_a_certificate_that_nobody_vouches_for_is_named(serve: Any, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    server = serve(lambda body, number: (200, {}, completion(body)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.url = server.url.replace("http:", "https:")
    teacher = endpoint.Endpoint(settings(server, max_retries=0))
    assert ask(teacher, 1, 1)[0, 0].finish_reason == "error"
    assert teacher.trouble == f"certificate verify failed at {server.url}"


def test_an_endpoint_that_goes_away_is_named_with_the_cause_and_what_is_kept(
    serve: Any, tmp_path: Path
) -> None:
    def behaviour(body: dict[str, Any], number: int) -> Answer:
        if number == 4:
            server.http.shutdown()
            server.http.server_close()
        return (0, {}, b"") if number >= 4 else (200, {}, completion(body))

    server = serve(behaviour)
    with pytest.raises(ErrorRateError) as caught:
        generate(tmp_path, server, max_retries=1, concurrency=1)
    told = str(caught.value)
    assert re.search(r"got \d+ failed responses of 30, expected at most .*teacher\.max_error_frac", told)
    assert f"connection refused at {server.url}." in told
    assert "12 of 30 responses are there and kept" in told  # four requests of three samples
    assert "the same command continues" in told
    assert KEY not in told
    assert "\n" not in told


def check_no_key(root: Path, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """Not in a log at any level, not on the terminal, in no file."""
    captured = capfd.readouterr()
    assert KEY not in caplog.text
    assert KEY not in captured.out + captured.err
    for path in root.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_the_seed_of_a_response_is_the_one_that_was_sent(serve: Any) -> None:
    def alone(body: dict[str, Any], number: int) -> Answer:
        return 200, {}, completion(body, n=1)

    together = ask(endpoint.Endpoint(settings(serve(lambda body, number: (200, {}, completion(body))))), 4, 3)
    assert {key: r.seed for key, r in together.items()} == {
        (i, s): 100 * i for i in range(4) for s in range(3)
    }
    apart = ask(endpoint.Endpoint(settings(serve(alone), concurrency=1)), 4, 3)
    assert {key: r.seed for key, r in apart.items()} == {
        (i, s): 100 * i + s for i in range(4) for s in range(3)
    }
    silent = ask(endpoint.Endpoint(settings(serve(alone), send_seed=False)), 2, 2)
    assert {r.seed for r in silent.values()} == {NO_SEED}


def test_a_refused_prompt_does_not_cost_the_others_their_n(serve: Any) -> None:
    def behaviour(body: dict[str, Any], number: int) -> Answer:
        if body["messages"][-1]["content"] == "q0":
            return 400, {}, b'{"error": "prompt is too long"}'
        return 200, {}, completion(body)

    server = serve(behaviour)
    found = ask(endpoint.Endpoint(settings(server, concurrency=1)), 6, 4)
    assert {i for (i, _), r in found.items() if r.finish_reason == "error"} == {0}
    assert Counter(b["messages"][-1]["content"] for b in server.bodies) == {
        "q0": 2, "q1": 1, "q2": 1, "q3": 1, "q4": 1, "q5": 1,
    }  # fmt: skip


def test_an_endpoint_that_is_too_slow_for_so_many_gets_fewer(serve: Any) -> None:
    """It works on one thing at a time: of many at once most would wait beyond their limit."""
    one_at_a_time = threading.Lock()

    def behaviour(body: dict[str, Any], number: int) -> Answer:
        with one_at_a_time:
            time.sleep(0.05)
        return 200, {}, completion(body)

    server = serve(behaviour)
    found = ask(endpoint.Endpoint(settings(server, concurrency=32, timeout_s=0.6, max_retries=8)), 60, 1)
    assert all(r.finish_reason == "stop" for r in found.values())
    assert len(server.bodies) < 60 * 2


def test_what_a_dying_server_cut_short_is_asked_again(serve: Any) -> None:
    def behaviour(body: dict[str, Any], number: int) -> Answer:
        if number > 0:
            return 200, {}, completion(body)
        choice = {"message": {"content": "half an ans"}, "finish_reason": "abort"}
        return 200, {}, json.dumps({"choices": [choice]}).encode()

    server = serve(behaviour)
    found = ask(endpoint.Endpoint(settings(server)), 1, 1)
    assert found[0, 0].text == "q0 -> 0.0"
    assert len(server.bodies) == 2


def test_ids_of_tokens_make_counts_exact(serve: Any) -> None:
    def behaviour(body: dict[str, Any], number: int) -> Answer:
        texts = {"a long text of one token": 1, "x": 5}
        choices = [
            {"message": {"content": text}, "finish_reason": "stop", "token_ids": list(range(count))}
            for text, count in texts.items()
        ]
        return (
            200,
            {},
            json.dumps({"choices": choices, "usage": {"completion_tokens": 6, "prompt_tokens": 9}}).encode(),
        )

    found = ask(endpoint.Endpoint(settings(serve(behaviour))), 1, 2)
    assert [found[0, s].num_tokens for s in range(2)] == [1, 5]
    assert [found[0, s].prompt_tokens for s in range(2)] == [9, 0]


def test_requests_are_taken_as_there_is_room(serve: Any) -> None:
    """Few are held ahead, and the endpoint is never without one while more are coming."""
    taken = finished = most_ahead = 0

    def slow(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.02)
        return 200, {}, completion(body)

    server: Server = serve(slow)
    teacher = endpoint.Endpoint(settings(server, concurrency=4))

    def coming() -> Any:
        nonlocal taken, most_ahead
        for i in range(60):
            taken += 1
            most_ahead = max(most_ahead, taken - finished)
            yield Request(i, teacher.render([{"role": "user", "content": f"q{i}"}]), ((0, i), (1, i)))

    for n, _ in enumerate(teacher.generate(coming(), Sampling())):
        finished = (n + 1) // 2
        if 8 < n < 100:
            with server.lock:
                assert len(server.bodies) > n // 2, "nothing is under way"
    assert taken == 60
    assert most_ahead <= 9
    assert server.most_under_way == 4


def test_a_caller_that_fails_while_feeding_stops_the_requests(serve: Any) -> None:
    server = serve(lambda body, number: (200, {}, completion(body)))
    teacher = endpoint.Endpoint(settings(server))

    def broken() -> Any:
        yield Request(0, teacher.render([{"role": "user", "content": "q"}]), ((0, 1),))
        raise StageError("no more")

    with pytest.raises(StageError, match="no more"):
        list(teacher.generate(broken(), Sampling()))
    assert "endpoint" not in {thread.name for thread in threading.enumerate()}
