"""Every stage, broken at a random file operation, then run again by the same command.

Each cell asks the same: nothing that was finished is lost, the user sees one line and no
traceback, no process and no stray file is left, and the same command ends with the same table
as a run that nothing disturbed. The complete matrix: `pytest tests/faults -m "slow or not
slow"`, with ADVDISTILL_FAULT_TABLE=FILE.md for the table of outcomes and ADVDISTILL_FAULT_SEED
for other moments.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab, chance_of, may_mount, small_disk
from matrix import note
from pipeline import STEPS

#: Stages cheap enough to be broken each time the tests run.
QUICK = ("load", "gate prompts")
Damage = Callable[[Path, random.Random], None]
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""
mounts = pytest.mark.skipif(not may_mount(), reason="only root may mount")


def torn(path: Path, chance: random.Random) -> None:
    """Leave a part of a file."""
    size_bytes = path.stat().st_size
    os.truncate(path, chance.randrange(size_bytes) if size_bytes else 0)


def flipped(path: Path, chance: random.Random) -> None:
    """Change one bit and nothing else, as a bad disk does."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(data))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def every_stage() -> list[object]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STEPS]


@pytest.mark.parametrize("label", every_stage())
@pytest.mark.parametrize("fault", ["kill", "terminate"])
def test_ended_by_a_signal(lab: Lab, root: Path, label: str, fault: str) -> None:
    broken = lab.broken(root, label, fault, chance_of(label, fault), extra={})
    assert broken.code in ((1,) if STEPS[label].stage.own_process else (-9, -15)), broken.error
    if broken.code == 1:
        assert broken.says_one_line(), broken.error
    lab.check_nothing_lost(root, label)
    again = lab.again(root, label)
    lab.check_same(root, label, again)
    note(label, "SIGKILL" if fault == "kill" else "SIGTERM", f"{broken.code} → {again.made[label][0]}")


@mounts
@pytest.mark.parametrize("label", every_stage())
def test_a_full_disk(lab: Lab, tmp_path: Path, label: str) -> None:
    with small_disk(tmp_path / "disk") as disk:
        root, filler = disk / "store", disk / "filler"
        broken = lab.broken(root, label, "fill", chance_of(label, "fill"), filler=str(filler))
        assert broken.code in (0, 1)
        if broken.code:
            assert broken.says_one_line(), broken.error
            assert "No space left on device" in broken.error
        lab.check_nothing_lost(root, label)
        filler.unlink()
        again = lab.again(root, label)
        lab.check_same(root, label, again)
    note(label, "disk full", f"{broken.code} → {again.made[label][0]}")


@mounts
@pytest.mark.parametrize("label", every_stage())
def test_a_store_that_becomes_read_only(lab: Lab, root: Path, label: str) -> None:
    try:
        broken = lab.broken(root, label, "read_only", chance_of(label, "read_only"))
        assert broken.code in (0, 1)
        if broken.code:
            assert broken.says_one_line(), broken.error
            assert "Read-only file system" in broken.error
        lab.check_nothing_lost(root, label)
    finally:
        os.system(f"umount -l {root}")
    again = lab.again(root, label)
    lab.check_same(root, label, again)
    note(label, "read-only store", f"{broken.code} → {again.made[label][0]}")


@pytest.mark.parametrize("label", every_stage())
def test_a_store_that_is_gone_for_a_while(lab: Lab, root: Path, label: str) -> None:
    """The root's folder is away, as a disk that was unmounted, and comes back."""
    away = root.with_name(root.name + ".away")
    broken = lab.broken(root, label, "vanish", chance_of(label, "vanish"))
    assert broken.code in (0, 1)
    if broken.code:
        assert broken.says_one_line(), broken.error
    assert not any(p.is_file() for p in root.rglob("*")), "written in the place of a store that is gone"
    shutil.rmtree(root, ignore_errors=True)
    away.rename(root)
    lab.check_nothing_lost(root, label)
    again = lab.again(root, label)
    lab.check_same(root, label, again)
    note(label, "store gone and back", f"{broken.code} → {again.made[label][0]}")


@pytest.mark.parametrize("label", every_stage())
def test_want_of_memory(lab: Lab, root: Path, label: str) -> None:
    """From a random moment on the process gets no more memory than it has."""
    broken = lab.broken(root, label, "starve", chance_of(label, "starve"), within=0.1, extra={})
    assert broken.code in (0, 1)
    if broken.code:
        assert "Traceback" not in broken.error, broken.error
        assert broken.error.startswith("advdistill: "), broken.error
    lab.check_nothing_lost(root, label)
    again = lab.again(root, label)
    lab.check_same(root, label, again)
    note(label, "out of memory", f"{broken.code} → {again.made[label][0]}")


@pytest.mark.parametrize("label", every_stage())
def test_a_clock_that_jumps(lab: Lab, root: Path, label: str, clock: Path) -> None:
    """The wall clock moves by 400 days within the stage, and with it the stamps of all files."""
    offset, chance = root.with_name("clock"), chance_of(label, "jump")
    seconds = chance.choice([1, -1]) * 400 * 86_400
    told = {"clock": str(offset), "seconds": seconds}
    preload = {"LD_PRELOAD": str(clock), "ADVDISTILL_CLOCK": str(offset)}
    jumped = lab.broken(root, label, "jump", chance, extra=preload, **told)
    assert offset.exists()
    assert (jumped.code, jumped.error) == (0, "")
    lab.check_nothing_lost(root, label)
    again = lab.again(root, label)
    lab.check_same(root, label, again)
    assert again.made[label][0] == "cached"
    note(label, "clock jump", f"0 ({'ahead' if seconds > 0 else 'back'}) → {again.made[label][0]}")


@pytest.mark.parametrize("label", every_stage())
@pytest.mark.parametrize("damage", [torn, flipped])
def test_damaged_files(lab: Lab, root: Path, label: str, damage: Damage) -> None:
    """One file of the unfinished stage, then one of the finished one, is torn or has a flipped bit."""
    chance = chance_of(label, damage.__name__)
    broken = lab.broken(root, label, "kill", chance)
    assert broken.code
    folder = root / lab.expected(label)[2]
    left = [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []
    if left:
        damage(chance.choice(left), chance)
    again = lab.again(root, label)
    if again.made[label][0] == "cached":  # it was killed when all was done
        again = lab.again(root, label, deep=True)
    lab.check_same(root, label, again)
    outcomes = [again.made[label][0]]

    parts = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    others = [p for p in parts if p.name != "manifest.json"]  # a likelihood has none
    for part in [folder / "manifest.json", *([chance.choice(others)] if others else [])]:
        damage(part, chance)
        again = lab.again(root, label, deep=True)
        lab.check_same(root, label, again)
        assert again.made[label][0] != "cached", f"{part} was damaged"
        outcomes.append(again.made[label][0])
    note(label, f"{damage.__name__} file", f"{broken.code} → {', '.join(outcomes)}")


@pytest.mark.parametrize("label", every_stage())
def test_a_bit_that_flips_in_silence(lab: Lab, root: Path, label: str) -> None:
    """Size and stamp stay: a stage that reads the file says so, and the same command mends it."""
    readers = [name for name, step in STEPS.items() if label in step.inputs.values()]
    if not readers:
        note(label, "silent flip, read", "no stage reads it")
        pytest.skip("no stage reads it: `storage.deep_verify` notices, see test_damaged_files")
    chance = chance_of(label, "silent")
    reader, noticed = readers[0], 0
    lab.without(reader, root)
    folder = root / lab.expected(label)[2]
    for part in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"):
        whole = part.read_bytes()
        flipped(part, chance)
        broken = lab.again(root, reader)
        if not broken.code:  # it does not read this part
            part.write_bytes(whole)
            shutil.rmtree(root / broken.made[reader][2])
            continue
        noticed += 1
        assert broken.says_one_line(), broken.error
        assert "altered bytes" in broken.error
        again = lab.again(root, reader)
        lab.check_same(root, label, again)
        lab.check_same(root, reader, again)
        assert again.made[label][0] != "cached"
        shutil.rmtree(root / again.made[reader][2])
    assert noticed
    note(label, "silent flip, read", f"1 → ran ({reader} noticed)")


@pytest.mark.parametrize("label", every_stage())
def test_two_writers(lab: Lab, root: Path, label: str) -> None:
    """Two at once, the first one held up in the middle: one makes it, the other takes it."""
    lab.without(label, root)
    told = lab.told(root, label, "pause", chance_of(label, "pause"), seconds=1)
    both = [lab.fork(root, label, told), lab.fork(root, label)]
    ended = [lab.end(process) for process in both]
    assert [(e.code, e.error) for e in ended] == [(0, ""), (0, "")]
    assert sorted(e.made[label][0] for e in ended) == ["cached", "ran"]
    lab.check_same(root, label, ended[0])
    note(label, "two writers", "0 and 0 → ran and cached")


@pytest.mark.parametrize("label", every_stage())
def test_the_lock_of_a_dead_holder(lab: Lab, root: Path, label: str) -> None:
    """A lock file of a process that was killed, whatever it holds, keeps nobody waiting."""
    lab.without(label, root)
    place = lab.expected(label)[2].replace("/", "-")
    lock = root / ".locks" / f"{place}.lock"
    lock.write_text("pid 1, since for ever")
    lock.chmod(0o600)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline()
    waiting = lab.fork(root, label)
    time.sleep(1)
    assert waiting.poll() is None, "it waits for a living holder"
    holder.kill()
    holder.wait()
    ended = lab.end(waiting)
    lab.check_same(root, label, ended)
    note(label, "lock of a dead holder", f"waited, then {ended.made[label][0]}")
