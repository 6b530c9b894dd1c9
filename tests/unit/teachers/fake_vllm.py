"""Stands in for the interpreter of a vLLM environment: answers fast, dies as it is told.

Called as `python -c ...` it names its distributions; as `python -m vllm... serve MODEL ...` it
serves completions. Like vLLM it is a server process with an engine child, ends with its
engine, and leaves the engine behind when it is killed. FAKE_VLLM is JSON with how it behaves.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOW: dict[str, Any] = {"name": "vllm", "start_s": 0.0, "answer_s": 0.0, **json.loads(os.environ["FAKE_VLLM"])}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer(HOW.get("health", 200), {})
        return self.answer(200 if self.authorized() else 401, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.authorized():
            return self.answer(401, {})
        with open(HOW["requests"], "a") as file:
            file.write(json.dumps({**body, "server": os.getpid()}) + "\n")
        time.sleep(HOW["answer_s"])
        question = body["messages"][-1]["content"]
        choices = [
            {"message": {"content": f"{question}#{i}"}, "finish_reason": "stop", "token_ids": [5, 6, 2]}
            for i in range(body.get("n", 1))
        ]
        return self.answer(200, {"choices": choices, "usage": {"completion_tokens": 3, "prompt_tokens": 4}})

    def authorized(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"

    def answer(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


def serve(arguments: list[str]) -> None:
    print("serving with", arguments, flush=True)
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "fake-engine"])
    with open(HOW["pids"], "a") as file:
        file.write(f"{os.getpid()} {engine.pid}\n")
    if HOW.get("deaf"):  # asking it to end does not help
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    starts = len(Path(HOW["pids"]).read_text().splitlines())
    if starts > HOW.get("good_starts", 1000):
        sys.exit("cannot start: out of luck")
    time.sleep(HOW["start_s"])
    port = int(arguments[arguments.index("--port") + 1])
    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    engine.wait()
    while HOW.get("deaf"):
        time.sleep(1)
    sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1] == "-c":
        print(json.dumps({HOW["name"]: "1.0"}))
    else:
        serve(sys.argv[2:])
