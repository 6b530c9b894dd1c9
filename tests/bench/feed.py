"""How full the generate stage keeps an engine, across the borders of its shards.

    python tests/bench/feed.py [--prompts 400] [--shard-size 8] [--concurrency 8] [--answer-s 0.1]

An endpoint that answers every request after the same time counts what it has under way, the
whole time from its first request to the last that reaches it. The stage is compared with a
plain client loop that always has as many requests under way as it may.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent))

from generate_stage import answer, configuration, conversations, stage, wanted

from advdistill_core.stages import LOAD, run_stage
from advdistill_core.store import Store


class Watched:
    """An endpoint that knows how long it had how many requests under way."""

    def __init__(self, answer_s: float) -> None:
        self.answer_s = answer_s
        self.under_way = 0
        self.changes: list[tuple[float, int]] = []  # (when, how many from then on)
        self.arrivals: list[float] = []
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True).start()
        ready.wait()

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                n = await wanted(reader)
                self.arrivals.append(time.monotonic())
                self._now(+1)
                await asyncio.sleep(self.answer_s)
                self._now(-1)
                await answer(writer, n)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _now(self, step: int) -> None:
        self.under_way += step
        self.changes.append((time.monotonic(), self.under_way))

    def take(self) -> tuple[float, float, float]:
        """Seconds from the first to the last arrival, mean under way, seconds with none; starts anew."""
        first, last = self.arrivals[0], self.arrivals[-1]
        held, idle_s = 0.0, 0.0
        for (since, count), (until, _) in zip(self.changes, self.changes[1:], strict=False):
            seconds = max(0.0, min(until, last) - max(since, first))
            held += count * seconds
            idle_s += seconds if count == 0 else 0.0
        self.changes.clear()
        self.arrivals.clear()
        return last - first, held / (last - first), idle_s


async def loop(url: str, bodies: list[dict[str, Any]], concurrency: int) -> None:
    places = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def ask(body: dict[str, Any]) -> None:
            async with places:
                (await client.post(f"{url}/chat/completions", json=body)).raise_for_status()

        await asyncio.gather(*map(ask, bodies))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--shard-size", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--answer-s", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    server = Watched(arguments.answer_s)
    with tempfile.TemporaryDirectory() as root:
        config = configuration(
            root, arguments.prompts, k=4, backend="openai", model="m", base_url=server.url,
            concurrency=arguments.concurrency, shard_size=arguments.shard_size,
        )  # fmt: skip
        loaded = run_stage(LOAD, config, {}, Store(root))
        bodies = [
            {"model": "m", "messages": row["messages"], "n": 4} for row in conversations(config, loaded)
        ]
        runs = {
            "stage": lambda: stage(config, loaded),
            "client loop": lambda: asyncio.run(loop(server.url, bodies, arguments.concurrency)),
        }
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                run()
                seconds, mean, idle_s = server.take()
                print(
                    f"{name}: {seconds:.2f} s, {mean:.2f} of {arguments.concurrency} under way on average, "
                    f"none for {idle_s * 1000:.0f} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
