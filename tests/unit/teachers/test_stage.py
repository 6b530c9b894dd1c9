"""The stage on a tiny model: the same table however often it was interrupted."""

import os
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.errors import ErrorRateError, StageError
from advdistill_core.models.chat import render
from advdistill_core.progress import Event
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import ArtifactRef, Store, tables
from advdistill_core.teachers import Sampling, request_hash, response_seed
from advdistill_core.teachers.journal import Journal
from advdistill_core.teachers.local import Engine
from advdistill_core.teachers.protocol import OnTokens, Request, Response

NUM, K = 7, 3


def config(root: Path, num: int = NUM, **teacher: Any) -> DistillConfig:
    settings = {"model": "tiny-random-llama", "k": K, "max_new_tokens": 6, "shard_size": 3, **teacher}
    return DistillConfig.model_validate(
        {
            "prompts": {"num_train": num, "num_heldout": 2},
            "teacher": {"device": "cpu", **settings},
            "storage": {"root": str(root)},
        }
    )


def generate(root: Path, num: int = NUM, progress: Any = lambda event: None, **teacher: Any) -> ArtifactRef:
    wanted, store = config(root, num, **teacher), Store(str(root))
    loaded = run_stage(LOAD, wanted, {}, store)
    return run_stage(GENERATE, wanted, {"prompts": loaded}, store, progress=progress)


class FailAfter:
    """Fail once tokens come for the shard after the first `done` responses."""

    def __init__(self, done: int) -> None:
        self.done = done
        self.tokens: int | None = None

    def __call__(self, event: Event) -> None:
        if event.stage != "generate" or event.done < self.done:
            return
        if self.tokens is None:
            self.tokens = event.tokens
        elif event.tokens > self.tokens:
            raise StageError("stop here")


def kept_rows(root: Path) -> int:
    """Responses that an interrupted generation left, in shards and in the journals of others.

    A kill between a shard and the end of its journal leaves both.
    """
    finished = shards_of(root)
    keys = {path.stem for path in finished}
    journals = [p for p in root.glob("generate/*/work/responses/*.jsonl") if p.name.split(".")[0] not in keys]
    return sum(len(Journal(p).read()) for p in journals) + sum(
        pq.read_metadata(path).num_rows for path in finished
    )


def shards_of(root: Path) -> list[Path]:
    return sorted(root.glob("generate/*/work/*.parquet"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every sample asked of the engine."""
    asked: list[tuple[int, int]] = []
    original = Engine.generate

    def counting(
        self: Engine, requests: Iterable[Request], sampling: Sampling, on_tokens: OnTokens | None = None
    ) -> Iterator[Response]:
        def taken() -> Iterator[Request]:
            for request in requests:
                asked.extend((request.index, s) for s, _ in request.samples)
                yield request

        return original(self, taken(), sampling, on_tokens)

    monkeypatch.setattr(Engine, "generate", counting)
    return asked


def test_the_table(tmp_path: Path) -> None:
    ref = generate(tmp_path)
    artifact = Store(str(tmp_path)).open(ref)
    table = artifact.table()
    assert table.schema.equals(tables.RESPONSES)
    wanted = config(tmp_path)
    prompts = Store(str(tmp_path)).open(run_stage(LOAD, wanted, {}, Store(str(tmp_path)))).table("train")
    rows = table.to_pylist()
    ids = prompts["prompt_id"].to_pylist()
    assert [(r["prompt_id"], r["sample_id"]) for r in rows] == [(i, s) for i in ids for s in range(K)]
    assert all(r["seed"] == response_seed(0, r["prompt_id"], r["sample_id"]) for r in rows)
    text = render(models.load_tokenizer("tiny-random-llama"), prompts["messages"].to_pylist()[0])
    sampling = Sampling(0.8, 1.0, 0, 6)
    assert rows[0]["request_hash"] == request_hash(models.identity("tiny-random-llama"), text, sampling)
    assert all(1 <= r["num_tokens"] <= 6 for r in rows)
    assert all((r["finish_reason"] == "length") <= (r["num_tokens"] == 6) for r in rows)
    manifest = artifact.manifest
    assert manifest.tokens["generated"] == sum(r["num_tokens"] for r in rows)
    truncated = sum(r["finish_reason"] == "length" for r in rows) / len(rows)
    assert manifest.metrics["truncated_frac"] == pytest.approx(truncated)


def test_a_response_left_out_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Engine.generate

    def forgetful(self: Engine, *args: Any) -> Iterator[Response]:
        yield from list(original(self, *args))[1:]

    monkeypatch.setattr(Engine, "generate", forgetful)
    with pytest.raises(StageError, match="got 8 responses, expected 3 to each of 3 prompts"):
        generate(tmp_path)


def test_settings_of_the_machine_change_nothing(tmp_path: Path) -> None:
    base = generate(tmp_path / "a")
    other = generate(tmp_path / "b", batch_size=2, shard_size=5)
    assert base.fingerprint == other.fingerprint
    assert base.content_hash == other.content_hash


@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.5}, {"k": 2}])
def test_settings_of_the_sampling_change_the_fingerprint(tmp_path: Path, change: dict[str, Any]) -> None:
    base, other = generate(tmp_path), generate(tmp_path, **change)
    assert base.fingerprint != other.fingerprint
    assert base.content_hash != other.content_hash


def test_a_failed_stage_continues_with_the_next_response(
    tmp_path: Path, counted: list[tuple[int, int]]
) -> None:
    whole = generate(tmp_path / "whole")
    with pytest.raises(StageError, match="stop here"):
        generate(tmp_path / "cut", progress=FailAfter(2 * K))
    kept = kept_rows(tmp_path / "cut")
    assert 2 * K <= kept < NUM * K
    counted.clear()
    events: list[Event] = []
    resumed = generate(tmp_path / "cut", progress=events.append)
    assert len(counted) == NUM * K - kept
    assert resumed.outcome == "resumed"
    assert events[-1].figures["kept"] == kept, "who looks on is told what was not lost"
    assert resumed.content_hash == whole.content_hash
    metrics = Store(str(tmp_path / "cut")).open(resumed).manifest.metrics
    assert metrics["resumed_responses"] == kept
    assert metrics["new_responses"] == len(counted)


def test_only_the_rows_of_a_damaged_shard_are_made_again(
    tmp_path: Path, counted: list[tuple[int, int]]
) -> None:
    whole = generate(tmp_path / "whole", batch_size=2)
    with pytest.raises(StageError):
        generate(tmp_path / "cut", progress=FailAfter(6 * K + 1), batch_size=2)
    torn = shards_of(tmp_path / "cut")[0]
    kept = kept_rows(tmp_path / "cut")
    lost = pq.read_metadata(torn).num_rows
    torn.write_bytes(torn.read_bytes()[:-40])
    counted.clear()
    assert generate(tmp_path / "cut").content_hash == whole.content_hash
    assert len(counted) == NUM * K - kept + lost


def altered(part: bytes) -> bytes:
    """A whole Parquet file of the same size with another text."""
    rows = tables.decode(part).to_pylist()
    text = rows[0]["text"]
    for letter in string.ascii_letters:
        rows[0]["text"] = letter + text[1:]
        found = tables.encode(tables.from_rows(rows, tables.RESPONSES))
        if rows[0]["text"] != text and len(found) == len(part):
            return found
    raise AssertionError("no text of the same size")


def test_only_the_rows_of_a_damaged_part_are_made_again(
    tmp_path: Path, counted: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torn and an altered part of a finished artifact; also when the repair is interrupted."""
    monkeypatch.setattr(tables.in_parts, "__defaults__", (4,))
    whole = generate(tmp_path)
    folder = tmp_path / "generate" / whole.fingerprint
    parts = sorted(folder.glob("*.parquet"))
    assert len(parts) == 6
    parts[0].write_bytes(parts[0].read_bytes()[:-40])
    parts[2].write_bytes(altered(parts[2].read_bytes()))
    counted.clear()
    with pytest.raises(StageError):
        generate(tmp_path, progress=FailAfter(1))
    assert not (folder / "manifest.json").exists()
    again = generate(tmp_path)
    assert again.content_hash == whole.content_hash
    assert len(counted) <= 2 * 8  # the attempt that failed may have asked for all of them
    manifest = Store(str(tmp_path)).open(again).manifest
    assert manifest.metrics["reused_responses"] == NUM * K - 8


def test_sigkill_loses_what_was_under_way(tmp_path: Path, counted: list[tuple[int, int]]) -> None:
    whole = generate(tmp_path / "whole", num=60, max_new_tokens=40)
    counted.clear()
    script = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2]); import test_stage\n"
        "test_stage.generate(Path(sys.argv[1]), num=60, max_new_tokens=40)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "cut"), str(Path(__file__).parent)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while len(shards_of(tmp_path / "cut")) < 2:
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = kept_rows(tmp_path / "cut")
    assert kept >= 2 * 3 * K
    resumed = generate(tmp_path / "cut", num=60, max_new_tokens=40)
    assert resumed.content_hash == whole.content_hash
    assert len(counted) == 60 * K - kept


def test_too_long_prompts_are_recorded_and_bounded(tmp_path: Path) -> None:
    def with_long_prompt(store: Store) -> ArtifactRef:
        row = {
            "prompt_id": "q0", "task": "math", "messages": [{"role": "user", "content": "1 + 1 ="}],
            "reference_answer": "2", "choices": [], "split": "train", "source": "test",
        }  # fmt: skip
        long = {**row, "prompt_id": "q1", "messages": [{"role": "user", "content": "9" * 3000}]}
        out = store.begin("load", "1", "e" * 32, "prompts")
        out.write_tables([tables.from_rows([row, long], tables.PROMPTS)], "train")
        return out.commit({}, {})

    store = Store(str(tmp_path))
    loaded = with_long_prompt(store)
    with pytest.raises(ErrorRateError, match="1 failed responses of 6"):
        run_stage(GENERATE, config(tmp_path), {"prompts": loaded}, store)
    ref = run_stage(GENERATE, config(tmp_path, max_error_frac=0.5, seed=1), {"prompts": loaded}, store)
    rows = store.open(ref).table().to_pylist()
    assert [r["finish_reason"] for r in rows if r["prompt_id"] == "q1"] == ["error"] * 3
    assert all(r["finish_reason"] != "error" for r in rows if r["prompt_id"] == "q0")


def test_progress_never_goes_back(tmp_path: Path) -> None:
    events: list[Event] = []
    generate(tmp_path, progress=events.append)
    mine = [e for e in events if e.stage == "generate"]
    assert [e.done for e in mine] == sorted(e.done for e in mine)
    assert [e.tokens for e in mine] == sorted(e.tokens for e in mine)
    assert (mine[-1].done, mine[-1].total, mine[-1].unit) == (NUM * K, NUM * K, "responses")


def test_a_cached_stage_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = generate(tmp_path)
    monkeypatch.setattr(models, "load_model", None)  # calling it would fail
    again = generate(tmp_path)
    assert again.outcome == "cached"
    assert again.content_hash == first.content_hash
