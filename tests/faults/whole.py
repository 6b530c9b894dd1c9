"""Whole runs, as a user starts them, in which one stage is still to be made and meets a fault."""

import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import HERE, broken_in, stand_ins
from pipeline import STEPS
from server_fixture import Cli

from advdistill_core.store import Store

_SET = (
    "evaluation.sets=[{name: other, num_questions: 6, seed: 7, families: "
    "[{name: chain_sum, params: {min_terms: 2, max_terms: 2, min_digits: 2, max_digits: 2}}]}]"
)
#: So that a run has every stage, and each is short.
_CHANGES = [
    "teacher.device=cpu",
    "student.device=cpu",
    "student.checkpoint_every_steps=2",
    "evaluation.device=cpu",
    "evaluation.likelihoods=4",
    "evaluation.harness.tasks=[stand_in]",
    "storage.hub_dataset=me/data",
    _SET,
]
#: What a run calls a stage, where that is not its name.
_LABELS = {
    "questions": "questions other",
    "likelihood": "likelihood after",
    "harness": "evaluate after standard tasks",
}
#: The commands that make a stage, where `run` does not.
_COMMANDS = {"select": ["redistill"], "compare": ["compare", "--arms", "sft-1", "--seeds", "3"]}
#: They tell times, or depend on what does.
_TELL_TIMES = ("publish", "push")


@dataclass
class Commands(Cli):
    """The command line with what stands in for a hub and for lm-evaluation-harness, perhaps with a fault."""

    told: dict[str, Any] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **broken_in(self.home, self.told)}

    def start(self, *arguments: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(HERE / "command_line.py"), *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
            preexec_fn=_hears_interruptions,
        )


def _hears_interruptions() -> None:
    """Shells start what they leave in the background so that it ignores Ctrl-C, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Undisturbed:
    """The store of runs that nothing disturbed.

    Args:
        root: where it is made, and where copies of it go, since records of runs are kept by address.
    """

    def __init__(self, home: Path, root: Path) -> None:
        self.home, self.root, self.kept = home, root, root.with_name("undisturbed")
        stand_ins(home)
        self.places: dict[str, str] = {}
        for command in ("load", *_COMMANDS):
            summary = Commands(home).json(*words(command, root))
            for name in STEPS:
                if (label := _LABELS.get(name, name)) in summary["stages"]:
                    self.places.setdefault(name, place(summary["stages"][label]["uri"]))
        assert {*self.places} == {*STEPS}
        root.rename(self.kept)
        self.contents = contents(self.kept)


def words(stage: str, root: Path) -> list[str]:
    """The command that makes a stage."""
    name, *more = _COMMANDS.get(stage, ["run"])
    changes = [part for change in _CHANGES for part in ("--set", change)]
    return [name, "smoke", "--root", str(root), *more, *changes]


def place(uri: str) -> str:
    """Stage and fingerprint."""
    return "/".join(uri.split("/")[-2:])


def contents(root: Path) -> dict[str, str]:
    """Content hash of every whole artifact but those that tell times."""
    store, found = Store(str(root), deep_verify=True), {}
    for path in sorted(root.glob("*/*/manifest.json")):
        ref = store.find(path.parts[-3], path.parts[-2])
        if ref and ref.stage not in _TELL_TIMES:
            found[f"{ref.stage}/{ref.fingerprint}"] = ref.content_hash
    return found


class Run:
    """A run in which one stage is still to be made.

    Args:
        root: where; that of the undisturbed runs without it.
        held_s: how long the stage is held up at a file operation in its middle.
    """

    def __init__(
        self, whole: Undisturbed, stage: str, root: Path | None = None, held_s: float = 0, at: int = 0
    ) -> None:
        self.whole, self.stage, self.root = whole, stage, root or whole.root
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(whole.kept, self.root, dirs_exist_ok=True)
        shutil.rmtree(self.root / whole.places[stage])
        shutil.rmtree(self.root / ".locks")
        self.finished = contents(self.root)
        self.log = whole.home / f"log-{uuid.uuid4().hex}"
        told = {
            "root": str(self.root),
            "stage": STEPS[stage].stage.name,
            "fault": "pause",
            "seconds": held_s,
            "at": at,
            "log": str(self.log),
        }
        self.process = Commands(whole.home, told if held_s else {}).start(*words(stage, self.root))

    def until_in_stage(self) -> "Run":
        """Wait until the stage is being made, and is held up if it is to be."""
        held = self.whole.places[self.stage].replace("/", "-", 1)
        lock = self.root / ".locks" / f"{held}.lock"
        self._until(lock)
        return self

    def until_held(self) -> "Run":
        """Wait until the stage is held up."""
        self._until(self.log)
        return self

    def _until(self, path: Path) -> None:
        deadline = time.monotonic() + 200
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def end(self) -> tuple[int, str]:
        """The exit code, and the last line that the user sees."""
        _, err = self.process.communicate(timeout=400)
        assert "Traceback" not in err, err[-3000:]
        return self.process.returncode, (err.strip().splitlines() or [""])[-1]

    def check(self) -> str:
        """Nothing that was finished is lost; the same command gives the undisturbed tables."""
        there = contents(self.root)
        assert {name: there.get(name) for name in self.finished} == self.finished
        summary = Commands(self.whole.home).json(*words(self.stage, self.root))
        assert contents(self.root) == self.whole.contents
        return str(summary["stages"][_LABELS.get(self.stage, self.stage)]["outcome"])
