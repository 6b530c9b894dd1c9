"""SIGKILL at random moments, each followed by the same command: nothing lost, nothing twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advdistill_core.config import DistillConfig
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
me.generate(Path(sys.argv[1]), int(sys.argv[4]))
"""


def generate(root: Path, num: int) -> Artifact:
    config = DistillConfig.model_validate(
        {
            "prompts": {"num_train": num, "num_heldout": 1},
            "teacher": {
                "model": "tiny-random-llama", "device": "cpu", "k": K, "max_new_tokens": 120,
                "shard_size": SHARD, "temperature": 1.5, "batch_size": 12,
            },
            "storage": {"root": str(root)},
        }
    )  # fmt: skip
    store = Store(str(root))
    loaded = run_stage(LOAD, config, {}, store)
    return store.open(run_stage(GENERATE, config, {"prompts": loaded}, store))


class Killed:
    """A generation that is started and killed again and again."""

    def __init__(self, root: Path, num: int) -> None:
        self.root, self.num, self.counts = root / "store", num, root / "drawn"

    def start(self) -> "subprocess.Popen[bytes]":
        here = str(Path(__file__).parent)
        return subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(self.root), str(self.counts), here, str(self.num)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def drawn(self) -> int:
        """Tokens drawn so far, by all attempts."""
        lines = self.counts.read_text().splitlines() if self.counts.exists() else []
        return sum(map(int, lines))

    def is_done(self) -> bool:
        return bool(list(self.root.glob("generate/*/manifest.json")))

    def kill_after(self, seconds: float, once_it_draws: bool) -> None:
        """Start it and kill it some seconds later, counted from its start or from its first token."""
        before, process = self.drawn(), self.start()
        deadline = time.monotonic() + 120
        while once_it_draws and self.drawn() == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def check(self, kills: int) -> None:
        """Finish it; the table is whole, and what was generated twice is within bounds."""
        assert self.start().wait(300) == 0
        artifact = generate(self.root, self.num)  # finds it
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
        whole = generate(self.root.parent / "whole", self.num)
        assert artifact.manifest.content_hash() == whole.manifest.content_hash()


def test_three_kills(tmp_path: Path) -> None:
    work = Killed(tmp_path, 24)
    chance = random.Random(4)
    for _ in range(3):
        work.kill_after(chance.uniform(0.0, 0.4), once_it_draws=True)
        assert not work.is_done(), "it ended before it could be killed"
    work.check(3)


@pytest.mark.slow
def test_25_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("ADVDISTILL_KILL_SEED", str(random.randrange(10**6))))
    print(f"seed {seed} (ADVDISTILL_KILL_SEED)")
    chance, work, in_the_work = random.Random(seed), Killed(tmp_path, 240), 0
    for number in range(25):
        once_it_draws = number % 5 != 0  # some while it starts
        in_the_work += not work.is_done()
        work.kill_after(chance.uniform(0, 1.0 if once_it_draws else 5.0), once_it_draws)
    assert in_the_work == 25, f"it was done after {in_the_work} kills"
    work.check(25)
