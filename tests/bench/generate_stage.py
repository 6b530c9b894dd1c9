"""The generate stage against the bare backend on the same requests, and its memory.

    python tests/bench/generate_stage.py local  [--prompts 32] ...       transformers, in process
    python tests/bench/generate_stage.py vllm   [--python .venv-vllm/bin/python] ...
    python tests/bench/generate_stage.py memory [--prompts 2000,20000]   an endpoint that answers at once
    python tests/bench/generate_stage.py memory --in-process             a teacher that does, for many prompts

`local` compares with our engine alone (same requests in one call) and with the library's own
`generate`. `vllm` starts one server and compares with a plain client loop of as many requests
at once; in a last pass it asks the server four times a second how many requests it has. Rounds
are interleaved, so that all meet the same machine.
"""

import argparse
import asyncio
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent))

from rows import tell_share

from advdistill_core.config import DistillConfig, TeacherConfig
from advdistill_core.models.chat import render
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import ArtifactRef, Store
from advdistill_core.teachers import Request, Response, Sampling, openings, response_seed

_POLL_S = 0.25


def configuration(root: str, num: int, **teacher: Any) -> DistillConfig:
    """A generation of short answers to `num` questions from a file."""
    questions = Path(root) / "questions.jsonl"
    if not questions.exists():
        questions.parent.mkdir(parents=True, exist_ok=True)
        with open(questions, "w", encoding="utf-8") as file:
            for i in range(num + 1):
                question = f"State the final answer to this problem: {i} + {7 * i % 90} * {i % 10} ="
                file.write(json.dumps({"question": question, "answer": str(i)}) + "\n")
    prompts = {
        "source": "file", "path": str(questions), "question_column": "question", "answer_column": "answer",
        "num_train": num, "num_heldout": 1, "families": [],
    }  # fmt: skip
    return DistillConfig.model_validate(
        {"prompts": prompts, "teacher": {"reuse": False, **teacher}, "storage": {"root": root}}
    )


def stage(config: DistillConfig, loaded: ArtifactRef) -> int:
    """The stage into a store of its own; returns the tokens."""
    store = Store(config.storage.root)
    ref = run_stage(GENERATE, config, {"prompts": loaded}, store)
    tokens = store.open(ref).manifest.tokens["generated"]
    store.files.remove(f"generate/{ref.fingerprint}")
    return tokens


def conversations(config: DistillConfig, loaded: ArtifactRef) -> list[dict[str, Any]]:
    return list(Store(config.storage.root).open(loaded).table("train").to_pylist())


def compare(contenders: dict[str, Callable[[], int]], rounds: int, by_cpu: bool = False) -> None:
    """Print each round, then the median speeds and what part of each the stage reaches.

    Args:
        by_cpu: count this process's CPU seconds, which other programs hardly touch.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            tokens = run()
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
            speeds[name].append(tokens / (cpu_s if by_cpu else seconds))
            line = {"which": name, "tokens": tokens, "seconds": round(seconds, 2), "cpu_s": round(cpu_s, 2)}
            print(json.dumps(line), flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    unit = "tokens per CPU second" if by_cpu else "tokens/s"
    for name, value in medians.items():
        ratio = f", stage / this = {medians['stage'] / value:.3f}" if name != "stage" else ""
        print(f"{name}: median {value:.1f} {unit}{ratio}", flush=True)
        if name != "stage":
            tell_share("generation, stage against backend", name, medians["stage"], value, unit, 0.95)


# -- transformers ---------------------------------------------------------------------------


def local(arguments: argparse.Namespace) -> None:
    import torch

    from advdistill_core import models

    with tempfile.TemporaryDirectory() as root:
        config = configuration(
            root, arguments.prompts, k=arguments.k, max_new_tokens=arguments.max_new_tokens, device="cpu",
            shard_size=arguments.shard_size, batch_size=arguments.batch_size, temperature=0.8,
        )  # fmt: skip
        teacher = config.teacher
        loaded = run_stage(LOAD, config, {}, Store(root))
        tokenizer = models.load_tokenizer(teacher.model)
        rows = conversations(config, loaded)
        prompts = [render(tokenizer, row["messages"]) for row in rows]
        print(f"{torch.get_num_threads()} threads", flush=True)
        contenders = {
            "stage": lambda: watched(config, loaded),
            "engine alone": lambda: bare(teacher, rows, prompts),
            "library": lambda: library(teacher, tokenizer, prompts),
        }
        compare(contenders, arguments.rounds, arguments.by_cpu)


def watched(config: DistillConfig, loaded: ArtifactRef) -> int:
    """The stage, with a line on how long the engine waited for it."""
    from advdistill_core.teachers.local import Engine

    with timing(Engine) as steps:
        tokens = stage(config, loaded)
    whole, busy = steps[-1][1] - steps[0][0], sum(end - start for start, end in steps)
    longest = max(b[0] - a[1] for a, b in itertools.pairwise(steps))
    print(
        f"engine idle between its first and last step: {whole - busy:.2f} of {whole:.2f} s "
        f"({(whole - busy) / whole:.1%}), at most {longest * 1000:.0f} ms at once",
        flush=True,
    )
    return tokens


def bare(teacher: TeacherConfig, rows: list[dict[str, Any]], prompts: list[str]) -> int:
    """The engine on all requests in one call; returns the tokens."""
    from advdistill_core import models
    from advdistill_core.teachers.local import Engine

    model = models.load_model(teacher.model, device="cpu")
    requests = [
        Request(i, prompt, tuple((s, response_seed(0, row["prompt_id"], s)) for s in range(teacher.k)))
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]
    sampling = Sampling(teacher.temperature, 1.0, 0, teacher.max_new_tokens)
    engine = Engine(model, models.load_tokenizer(teacher.model), teacher.batch_size)
    return sum(response.num_tokens for response in engine.generate(requests, sampling))


def library(teacher: TeacherConfig, tokenizer: Any, prompts: list[str]) -> int:
    """The library's own `generate`; returns the tokens."""
    import generate as library_bench

    from advdistill_core import models

    model = models.load_model(teacher.model, device="cpu")
    settings = argparse.Namespace(
        k=teacher.k,
        temperature=teacher.temperature,
        max_new_tokens=teacher.max_new_tokens,
        batch_size=teacher.batch_size,
    )
    return library_bench.library(model, tokenizer, prompts, settings)


@contextmanager
def timing(engine: Any) -> Iterator[list[tuple[float, float]]]:
    """When an engine of this process computed: the beginning and end of every piece of work."""
    pieces: list[tuple[float, float]] = []
    names = ("_exchange", "_draw", "_step")
    originals = {name: getattr(engine, name) for name in names}

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                pieces.append((started, time.perf_counter()))

        return run

    for name, function in originals.items():
        setattr(engine, name, timed(function))
    try:
        yield pieces
    finally:
        for name, function in originals.items():
            setattr(engine, name, function)


# -- a server ---------------------------------------------------------------------------------


def vllm(arguments: argparse.Namespace) -> None:
    from advdistill_core.teachers import vllm_command
    from advdistill_core.teachers.vllm_server import Server

    # Both go to the same server; without compilation it starts in half the time.
    extra = ["--max-num-seqs=64", "--enforce-eager"]
    settings = TeacherConfig.model_validate(
        {"backend": "vllm", "vllm": {"python": arguments.python, "extra_arguments": extra}}
    )
    build = vllm_command.find(settings)
    with tempfile.TemporaryDirectory() as root:
        server = Server(lambda port: vllm_command.arguments(settings, build, port), Path(root), 900, 0)
        server.start()
        try:
            against(server, root, arguments)
        finally:
            server.close()


def against(server: Any, root: str, arguments: argparse.Namespace) -> None:
    os.environ["BENCH_KEY"] = server.key
    config = configuration(
        root, arguments.prompts, k=arguments.k, max_new_tokens=arguments.max_new_tokens, backend="openai",
        base_url=server.base_url, api_key_env="BENCH_KEY", send_seed=False, concurrency=arguments.concurrency,
        shard_size=arguments.shard_size, temperature=0.8, timeout_s=900,
    )  # fmt: skip
    loaded = run_stage(LOAD, config, {}, Store(root))
    bodies = [
        {
            "model": config.teacher.model, "messages": row["messages"], "n": config.teacher.k, "top_p": 1.0,
            "temperature": 0.8, "max_tokens": config.teacher.max_new_tokens,
        }
        for row in conversations(config, loaded)
    ]  # fmt: skip

    def plain() -> int:
        return asyncio.run(loop(server, bodies, arguments.concurrency))

    compare({"stage": lambda: stage(config, loaded), "client loop": plain}, arguments.rounds)
    # Apart from the speeds, since asking costs the server time; the loop tells what its answer is worth.
    for name, run in (("stage", lambda: stage(config, loaded)), ("client loop", plain)):
        with watching(server.base_url.removesuffix("/v1")) as seen:
            run()
        busy = [i for i, running in enumerate(seen) if running > 0]
        between = seen[busy[0] : busy[-1] + 1]
        idle = "".join("." if running == 0 else str(min(9, int(running // 8))) for running in between)
        print(f"{name}, looks at a server without a request: {idle.count('.')} of {len(between)}: {idle}")


async def loop(server: Any, bodies: list[dict[str, Any]], concurrency: int) -> int:
    """What a short script does: all requests, some at once; returns the tokens."""
    places, headers = asyncio.Semaphore(concurrency), {"Authorization": f"Bearer {server.key}"}
    async with httpx.AsyncClient(headers=headers, timeout=900, trust_env=False) as client:

        async def ask(body: dict[str, Any]) -> int:
            async with places:
                answer = await client.post(f"{server.base_url}/chat/completions", json=body)
            return int(answer.raise_for_status().json()["usage"]["completion_tokens"])

        return sum(await asyncio.gather(*map(ask, bodies)))


@contextmanager
def watching(base: str) -> Iterator[list[float]]:
    """Requests that a vLLM server says it has, running and waiting, as time goes on."""
    seen: list[float] = []
    over = threading.Event()

    def look() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not over.wait(_POLL_S):
                lines = client.get(f"{base}/metrics").text.splitlines()
                names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
                seen.append(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


# -- memory -----------------------------------------------------------------------------------


def memory(arguments: argparse.Namespace) -> None:
    """Peak memory of the stage's process for several numbers of prompts."""
    server = subprocess.Popen([sys.executable, __file__, "endpoint"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline()) if not arguments.in_process else 0
        for num in map(int, str(arguments.prompts).split(",")):
            with tempfile.TemporaryDirectory() as root:
                for what in ("load", "generate"):  # the loading is no part of it
                    command = [sys.executable, __file__, f"one-{what}", root, str(num), str(port)]
                    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")
    finally:
        server.kill()
        server.wait()


class Instant:
    """A teacher in this process that answers at once, each time with another text."""

    def generate(self, requests: Iterable[Request], *arguments: Any) -> Iterator[Response]:
        for request in requests:
            for sample_id, _ in request.samples:
                yield Response(request.index, sample_id, os.urandom(100).hex(), "stop", 50)

    def close(self) -> None:
        pass


def one(what: str, root: str, num: int, port: int) -> None:
    if not port:
        openings.open_teacher = lambda *arguments: Instant()  # type: ignore[assignment,return-value]
    config = configuration(
        root, num, backend="openai", model="m", base_url=f"http://127.0.0.1:{port}/v1", k=4, concurrency=32
    )
    store = Store(root)
    loaded = run_stage(LOAD, config, {}, store)
    if what == "load":
        return
    started = time.perf_counter()
    rows = run_stage(GENERATE, config, {"prompts": loaded}, store).rows
    seconds = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{num} prompts, {rows} responses: {seconds:.1f} s, peak {peak_mib:.0f} MiB", flush=True)


async def wanted(reader: asyncio.StreamReader) -> int:
    """How many samples the next request asks for."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(json.loads(await reader.readexactly(length)).get("n", 1))


async def answer(writer: asyncio.StreamWriter, n: int) -> None:
    """200 characters a sample."""
    choices = [{"message": {"content": "x" * 200}, "finish_reason": "stop"}] * n
    data = json.dumps({"choices": choices, "usage": {"completion_tokens": 50 * n}}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
    await writer.drain()


async def endpoint() -> None:
    """An endpoint that answers at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await answer(writer, await wanted(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    if sys.argv[1] == "endpoint":
        asyncio.run(endpoint())
        return
    if sys.argv[1].startswith("one-"):
        one(sys.argv[1].removeprefix("one-"), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["local", "vllm", "memory"])
    parser.add_argument("--prompts", default=None)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--shard-size", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-process", action="store_true", help="memory: without HTTP")
    parser.add_argument("--by-cpu", action="store_true", help="local: count CPU seconds")
    parser.add_argument("--python", default=".venv-vllm/bin/python")
    arguments = parser.parse_args()
    if arguments.what == "memory":
        arguments.prompts = arguments.prompts or "2000,20000,60000"
        memory(arguments)
        return
    arguments.prompts = int(arguments.prompts or 32)
    {"local": local, "vllm": vllm}[arguments.what](arguments)


if __name__ == "__main__":
    main()
