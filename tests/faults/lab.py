"""Stages as processes of their own, faults in the middle of them, and what is left afterwards."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forked import Forked
from injection import Injection
from pipeline import STEPS, as_told, main, run_to

from advdistill_core.store import Store

HERE = Path(__file__).parent
TELL_TIMES = ("publish", "push")  # the report does, and what is pushed depends on it
SEED = os.environ.get("ADVDISTILL_FAULT_SEED", "0")
_STAND_IN = """
def simple_evaluate(**named):
    return {"results": {"stand_in": {"acc,none": 0.5}}, "versions": {}, "n-shot": {}, "n-samples": {}}
"""
_STAND_IN_TASKS = """
class TaskManager:
    def __init__(self, **named): ...
    def match_tasks(self, names): return names
"""


@dataclass
class Ended:
    """How a process ended.

    Args:
        made: outcome, content hash and place of the artifact of each step.
        happened: the file, relative to the root, at which the fault came; None if it did not.
    """

    code: int
    error: str
    made: dict[str, list[str]]
    happened: str | None

    def says_one_line(self) -> bool:
        """Whether what the user sees is one line, and no traceback."""
        return len(self.error.splitlines()) == 1 and self.error.startswith("advdistill: ")


@dataclass
class Lab:
    """Where stages are run and broken.

    Args:
        folder: a temporary one.
    """

    folder: Path
    _made: dict[str, list[str]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _marks: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._counter = Injection({"root": "nowhere"})
        sys.addaudithook(self._counter)
        stand_ins(self.folder)

    @property
    def whole(self) -> Path:
        """The store of a run that nothing disturbed."""
        return self.folder / "whole"

    # -- running ------------------------------------------------------------------------

    def environment(self, told: dict[str, Any], extra: dict[str, str]) -> dict[str, str]:
        return {**os.environ, **broken_in(self.folder, told), **extra}

    def start(
        self, root: Path | str, label: str, told: dict[str, Any] | None = None, **extra: str
    ) -> "subprocess.Popen[str]":
        """Run the steps up to one of them as users do: a new process, with one more for a model."""
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, str(HERE / "pipeline.py"), str(root), label],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(told or {}, {**extra, "ADVDISTILL_MARK": mark}),
            cwd=self.folder,
        )
        self._marks[process.pid] = mark
        return process

    def fork(self, root: Path, label: str, told: dict[str, Any] | None = None, deep: bool = False) -> Forked:
        """The same without the seconds that imports take: one process, a fork of this one."""
        mark = uuid.uuid4().hex

        def work() -> None:
            sys.path.insert(0, str(self.folder / "stand_ins"))  # here alone: other tests want the real ones
            if told:
                sys.addaudithook(Injection(told))
            main(str(root), label, deep, here=True)

        process = Forked(work, self.folder, {"ADVDISTILL_MARK": mark})
        self._marks[process.pid] = mark
        return process

    def end(self, process: "subprocess.Popen[str] | Forked", told: dict[str, Any] | None = None) -> Ended:
        """Wait for a process; nothing that it started may be left."""
        out, err = process.communicate(timeout=300)
        mark = self._marks.pop(process.pid)
        deadline = time.monotonic() + 5
        while left_over(mark):
            assert time.monotonic() < deadline, "a process outlived the run"
            time.sleep(0.05)
        return Ended(process.returncode, err.strip(), _made(out), happened(told))

    def again(self, root: Path, label: str, deep: bool = False) -> Ended:
        """The same command once more."""
        return self.end(self.fork(root, label, deep=deep))

    # -- an undisturbed run, and copies of it -------------------------------------------

    def expected(self, label: str) -> list[str]:
        """Outcome, content hash and place of a step's artifact when nothing disturbs it."""
        for name in STEPS:
            if name not in self._made:
                self._counter.told = {"root": str(self.whole), "stage": STEPS[name].stage.name}
                self._counter.count = 0
                # In this process, so that its forks find everything imported.
                with self._stand_ins_here():
                    made = as_told(run_to(str(self.whole), name, here=True))[name]
                assert made[0] == "ran", made
                self._made[name], self._counts[name] = made, self._counter.count
            if name == label:
                break
        self._counter.told = {"root": "nowhere"}
        return self._made[label]

    @contextmanager
    def _stand_ins_here(self) -> Iterator[None]:
        """Let this process find the stand-ins for a while; other tests want the real ones."""
        place = str(self.folder / "stand_ins")
        sys.path.insert(0, place)
        try:
            yield
        finally:
            sys.path.remove(place)
            for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
                del sys.modules[name]

    def without(self, label: str, root: Path) -> Path:
        """A copy of the undisturbed store in which a step is still to be made, and what follows."""
        self.expected(label)
        shutil.copytree(self.whole, root, dirs_exist_ok=True)
        names = [*STEPS]
        for name in names[names.index(label) :]:
            if name in self._made:
                shutil.rmtree(root / self._made[name][2])
        return root

    def told(
        self, root: Path, label: str, fault: str, chance: random.Random, within: float = 1.0, **more: Any
    ) -> dict[str, Any]:
        """What is to happen: a fault at a random file operation of a step, among the first share of them."""
        self.expected(label)
        return {
            "root": str(root),
            "stage": STEPS[label].stage.name,
            "fault": fault,
            "at": chance.randint(1, max(1, int(self._counts[label] * within))),
            "log": str(self.folder / f"log-{uuid.uuid4().hex}"),
            **more,
        }

    def broken(
        self,
        root: Path,
        label: str,
        fault: str,
        chance: random.Random,
        extra: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Ended:
        """A step of a copy of the undisturbed store, with a fault in its middle.

        Args:
            extra: environment of a process that is started as users do; forked without one.
        """
        told = self.told(root, label, fault, chance, **more)
        while True:
            self.without(label, root)
            process = (
                self.fork(root, label, told) if extra is None else self.start(root, label, told, **extra)
            )
            ended = self.end(process, told)
            if ended.happened:
                return ended
            assert told["at"] > 1, f"{label} has no file operation"
            told["at"] = max(1, told["at"] * 3 // 4)  # it has fewer of them on a root that exists
            shutil.rmtree(root)

    # -- what is left -------------------------------------------------------------------

    def check_nothing_lost(self, root: Path, label: str) -> None:
        """Whatever was finished before the step is there, to the byte."""
        store = Store(str(root), deep_verify=True)
        for name in STEPS:
            if name == label:
                return
            place = self._made[name][2]
            assert store.find(*place.split("/")), f"{name} is gone"

    def check_same(self, root: Path, label: str, ended: Ended) -> None:
        """The step ended well, with the result of an undisturbed run and with nothing beside it."""
        assert ended.code == 0, ended.error
        expected = self.expected(label)
        if label not in TELL_TIMES:
            assert ended.made[label][1:] == expected[1:]
        place = ended.made[label][2]
        folder = root / place
        manifest = Store(str(root), deep_verify=True).manifest(*place.split("/"))
        assert manifest is not None
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert there == {"manifest.json", *(part.name for part in manifest.parts)}
        assert Store(str(root), deep_verify=True).damage(manifest) is None


def stand_ins(folder: Path) -> None:
    """Install, in a folder of its own, what looks like lm-evaluation-harness."""
    package = folder / "stand_ins" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_STAND_IN)
    (package / "tasks.py").write_text(_STAND_IN_TASKS)
    about = folder / "stand_ins" / "lm_eval-0.4.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.9\n")


def broken_in(folder: Path, told: dict[str, Any]) -> dict[str, str]:
    """The environment of a process that has the stand-ins of a folder and meets a fault, if any is told."""
    places = (HERE / "injected", folder / "stand_ins", HERE.parents[1])
    return {
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        **({"ADVDISTILL_FAULT": json.dumps(told)} if told else {}),
    }


def chance_of(*names: str) -> random.Random:
    """The same chance for the same cell and seed."""
    return random.Random(hashlib.sha256("/".join([SEED, *names]).encode()).digest())


def happened(told: dict[str, Any] | None) -> str | None:
    log = Path(told["log"]) if told else None
    return log.read_text() if log and log.exists() else None


def left_over(mark: str) -> list[int]:
    """Living processes that were started with a mark in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


@contextmanager
def small_disk(folder: Path, size: str = "64m") -> Iterator[Path]:
    """A file system of its own, which can be filled."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def may_mount() -> bool:
    """Whether this process may mount file systems, which the kernel alone knows."""
    trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and not subprocess.run(trial, capture_output=True).returncode


def _made(out: str) -> dict[str, list[str]]:
    lines = out.strip().splitlines()
    return dict(json.loads(lines[-1])) if lines else {}
