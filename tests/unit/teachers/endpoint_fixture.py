"""A local endpoint that behaves as a test says, and ways to ask it."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from advdistill_core.config import DistillConfig, TeacherConfig
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Store
from advdistill_core.teachers import Response, Sampling, endpoint
from advdistill_core.teachers.protocol import Request

KEY = "sk-very-secret-0123456789"

# What a server does with a request: body and how many requests came before -> status, headers, answer.
Behaviour = Callable[[dict[str, Any], int], tuple[int, dict[str, str], bytes]]


def completion(body: dict[str, Any], n: int | None = None, **changes: Any) -> bytes:
    question = body["messages"][-1]["content"]
    count = body.get("n", 1) if n is None else n
    choices = [
        {"message": {"content": f"{question} -> {body.get('seed', 0)}.{i}"}, "finish_reason": "stop"}
        for i in range(count)
    ]
    return json.dumps(
        {"id": "same-id", "choices": choices, "usage": {"completion_tokens": 7 * count}, **changes}
    ).encode()


class Server:
    """A local endpoint with a scripted behaviour that counts what it is asked."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.keys.append(self.headers.get("authorization"))
                    outer.under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer.under_way)
                try:
                    status, headers, answer = outer.behaviour(body, number)
                    headers = dict(headers)
                finally:
                    with outer.lock:
                        outer.under_way -= 1
                if status == 0:  # cut
                    self.close_connection = True
                    return
                cut = headers.pop("x-cut", None)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[: len(answer) // 2] if cut else answer)
                self.close_connection = bool(cut)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


def settings(server: Server, **changes: Any) -> TeacherConfig:
    return TeacherConfig(backend="openai", model="m", base_url=server.url, **changes)


def ask(teacher: endpoint.Endpoint, num: int, k: int) -> dict[tuple[int, int], Response]:
    requests = [
        Request(
            i,
            teacher.render([{"role": "user", "content": f"q{i}"}]),
            tuple((s, 100 * i + s) for s in range(k)),
        )
        for i in range(num)
    ]
    found: dict[tuple[int, int], Response] = {}
    for response in teacher.generate(requests, Sampling(0.5, 0.9, 0, 20)):
        key = (response.index, response.sample_id)
        assert key not in found, "a sample came twice"
        found[key] = response
    assert set(found) == {(i, s) for i in range(num) for s in range(k)}
    return found


def good(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, completion(body)


def generate(
    root: Path, server: Server, progress: Any = lambda event: None, num_train: int = 10, **teacher: Any
) -> Any:
    config = DistillConfig.model_validate(
        {
            "prompts": {"num_train": num_train, "num_heldout": 1},
            "teacher": {
                "backend": "openai", "model": "m", "base_url": server.url, "k": 3, "shard_size": 4,
                "api_key_env": "TEST_KEY", "concurrency": 2, **teacher,
            },
        }
    )  # fmt: skip
    store = Store(str(root))
    loaded = run_stage(LOAD, config, {}, store)
    return store.open(run_stage(GENERATE, config, {"prompts": loaded}, store, progress=progress))
