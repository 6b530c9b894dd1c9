"""A package with verifiers of its own, as a user would install one."""

from pathlib import Path

import pytest

from advdistill_core.rewards import registry

_CODE = '''
import os, time
from advdistill_core.rewards import Graded, Verifier

class Sleepy(Verifier):
    """Takes as many seconds as the answer says."""
    def judge(self, answer, part):
        time.sleep(float(part.text))
        return Graded("correct", part.text)

class Hog(Verifier):
    """Takes as many MiB as the answer says, in small pieces."""
    def judge(self, answer, part):
        kept = [bytearray(b"x" * (1 << 20)) for _ in range(int(part.text))]
        return Graded("correct", str(len(kept)))

class Crash(Verifier):
    """Ends its process where the answer says so."""
    def judge(self, answer, part):
        if part.text == "die":
            os._exit(3)
        return Graded("correct", part.text)

class Raises(Verifier):
    def judge(self, answer, part):
        raise KeyError(part.text)

class Odd(Verifier):
    """Returns what is no verdict."""
    def glance(self, answer):
        if answer.text == "raise":
            raise KeyError("no such")
        return None if answer.text == "glance" else super().glance(answer)
    def second_opinion(self, answer):
        return ("correct", "x") if answer.text == "tuple" else Graded("wrong")
    def judge(self, answer, part):
        return {"none": None, "tuple": ("correct", "x"), "name": Graded("right"), "five": Graded("wrong", 5)}[
            part.text
        ]

class CrashAtAGlance(Verifier):
    """Dies before it says that it has begun."""
    def glance(self, answer):
        if answer.text == "die" and os.environ.get("PYTHONHASHSEED") == "0":
            os._exit(3)
        return super().glance(answer)
    def judge(self, answer, part):
        return Graded("correct", part.text)

NotAVerifier = 3
'''

_NAMES = {
    "sleepy": "Sleepy",
    "hog": "Hog",
    "crash": "Crash",
    "raises": "Raises",
    "odd": "Odd",
    "glance_crash": "CrashAtAGlance",
    "broken": "Missing",
    "no_class": "NotAVerifier",
    "math": "Sleepy",
}


@pytest.fixture
def own_verifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with entry points for the time of a test."""
    folder = tmp_path / "site"
    info = folder / "own_verifiers-1.2.dist-info"
    info.mkdir(parents=True)
    (folder / "own_verifiers.py").write_text(_CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-verifiers\nVersion: 1.2\n")
    lines = [f"{name} = own_verifiers:{kind}" for name, kind in _NAMES.items()]
    (info / "entry_points.txt").write_text("[advdistill.verifiers]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    registry._installed.cache_clear()
    yield folder
    registry._installed.cache_clear()
