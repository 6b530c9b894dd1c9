"""A local OpenAI-compatible endpoint that counts what it is asked and takes its time."""

import json
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class CountingEndpoint:
    """Answers with a text that no other answer has; `with` starts and ends it.

    Args:
        seconds: how long an answer takes.
        at_once: how many are worked on at the same time; the others wait.
        tokens: tokens of every answer.
    """

    def __init__(self, seconds: float = 0.0, at_once: int = 64, tokens: int = 7) -> None:
        self.seconds, self.tokens = seconds, tokens
        self.asked: Counter[str] = Counter()  # samples by question
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []  # of the requests' arrivals and answers, monotonic seconds
        self._places = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._number = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                data = self.rfile.read(length)
                if len(data) < length:  # the asker was killed
                    return
                answer = outer.answer(json.loads(data))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                with suppress(BrokenPipeError, ConnectionResetError):  # the asker was killed
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def num_asked(self) -> int:
        """Samples asked for so far."""
        return self.asked.total()

    def answer(self, body: dict[str, Any]) -> bytes:
        n = body.get("n", 1)
        self.times.append(time.monotonic())
        with self._places:
            time.sleep(self.seconds)
        with self._lock:
            self.times.append(time.monotonic())
            self.bodies.append(body)
            self.asked[body["messages"][-1]["content"]] += n
            first, self._number = self._number, self._number + n
        choices = [
            {"message": {"content": f"answer {first + i} is {i}"}, "finish_reason": "stop"} for i in range(n)
        ]
        usage = {"completion_tokens": self.tokens * n, "prompt_tokens": 11}
        return json.dumps({"choices": choices, "usage": usage}).encode()

    def __enter__(self) -> "CountingEndpoint":
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
