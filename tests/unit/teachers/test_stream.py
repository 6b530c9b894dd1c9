"""One stream through all shards: the engine is fed across their borders, at flat memory."""

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.progress import Event
from advdistill_core.stages import GENERATE, run_stage
from advdistill_core.store import ArtifactRef, Store, tables
from advdistill_core.teachers import openings
from advdistill_core.teachers.protocol import OnTokens, Request, Response, Sampling

AHEAD = 6


class Recorder:
    """A teacher that has some requests under way and answers them in any order."""

    def __init__(self, *arguments: Any) -> None:
        self.fewest = AHEAD
        self.calls = 0
        self.under_way: list[tuple[Request, int]] = []

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, on_tokens: OnTokens | None = None
    ) -> Iterator[Response]:
        self.calls += 1
        chance, coming, ended = random.Random(0), iter(requests), False
        while True:
            while not ended and len(self.under_way) < AHEAD:
                request = next(coming, None)
                if request is None:
                    ended = True
                else:
                    self.under_way += [(request, sample_id) for sample_id, _ in request.samples]
            if not ended:
                self.fewest = min(self.fewest, len(self.under_way))
            if not self.under_way:
                return
            request, sample_id = self.under_way.pop(chance.randrange(len(self.under_way)))
            yield Response(request.index, sample_id, "x" * 3000, "stop", 50, prompt_tokens=1)

    def close(self) -> None:
        pass


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(openings, "open_teacher", lambda *arguments: recorder)
    return recorder


def questions(store: Store, num: int) -> ArtifactRef:
    def rows() -> Iterator[Any]:
        for start in range(0, num, 500):
            yield tables.from_rows(
                (
                    {
                        "prompt_id": f"q{i}", "task": "math", "reference_answer": "1", "choices": [],
                        "messages": [{"role": "user", "content": f"{i} " + "word " * 40}],
                        "split": "train", "source": "test",
                    }
                    for i in range(start, start + 500)
                ),
                tables.PROMPTS,
            )  # fmt: skip

    out = store.begin("load", "1", f"{num:032d}", "prompts")
    out.write_tables(rows(), "train")
    return out.commit({}, {})


def generate(root: Path, num: int, progress: Any = lambda event: None) -> ArtifactRef:
    config = DistillConfig.model_validate(
        {
            "teacher": {
                "backend": "openai", "model": "m", "base_url": "http://host/v1", "k": 2, "shard_size": 10,
            }
        }
    )  # fmt: skip
    store = Store(str(root))
    return run_stage(GENERATE, config, {"prompts": questions(store, num)}, store, progress=progress)


def test_the_engine_is_full_to_the_last_request(tmp_path: Path, teacher: Recorder) -> None:
    events: list[Event] = []
    ref = generate(tmp_path, 500, events.append)
    assert teacher.calls == 1
    assert teacher.fewest >= AHEAD - 1
    rows = Store(str(tmp_path)).open(ref).table().to_pylist()
    assert [(r["prompt_id"], r["sample_id"]) for r in rows] == [
        (f"q{i}", s) for i in range(500) for s in (0, 1)
    ]
    done = [event.done for event in events if event.stage == "generate"]
    assert done == sorted(done)
    assert done[-1] == 1000


def test_memory_does_not_grow_with_the_prompts(
    tmp_path: Path, teacher: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables.in_parts, "__defaults__", (500,))  # parts are flat, too
    peaks = []
    for num in (500, 1500):
        store = Store(str(tmp_path / str(num)))
        questions(store, num)
        tracemalloc.start()
        generate(tmp_path / str(num), num)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    print(f"peaks of {peaks} bytes")
    # A prompt with its responses takes 7 kB; what grows is names of files and shards.
    assert peaks[1] - peaks[0] < 1000 * 1000


def test_the_table_is_written_as_it_comes(tmp_path: Path) -> None:
    """With parts of their real size: three times the rows, no more memory."""
    peaks = []
    pool = pa.default_memory_pool()
    for num_shards in (200, 600):
        counted = pa.proxy_memory_pool(pool)
        pa.set_memory_pool(counted)
        try:
            out = Store(str(tmp_path)).begin("generate", "1", f"{num_shards:032d}", "responses")
            out.write_tables(shard(number) for number in range(num_shards))
            assert out.commit({}, {}).rows == num_shards * 128
            peaks.append(counted.max_memory())
        finally:
            pa.set_memory_pool(pool)
    print(f"peaks of {peaks} bytes")
    assert peaks[1] < 1.2 * peaks[0]


def shard(number: int) -> pa.Table:
    chance = random.Random(number)
    return tables.from_rows(
        (
            {
                "prompt_id": f"{number}-{i // 4}", "sample_id": i % 4, "text": chance.randbytes(100).hex(),
                "finish_reason": "stop", "num_tokens": 50, "teacher": "m", "seed": i, "request_hash": "x",
            }
            for i in range(128)
        ),
        tables.RESPONSES,
    )  # fmt: skip
