"""Every stage on an object store that does not answer for a minute, or whose maker was killed."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from lab import TELL_TIMES, Ended, Lab, chance_of
from matrix import note
from pipeline import STEPS
from weak_link import WeakLink

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from s3_server import BUCKET, running_s3

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

OUTAGE_S = 60.0
_AT_ONCE = 5


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with running_s3() as environment:
        yield environment


class Bucket:
    """A store on S3 with everything that comes before a step, reached over a link that can be cut."""

    def __init__(self, lab: Lab, s3: dict[str, str], folder: Path, label: str, what: str) -> None:
        import s3fs

        self.lab, self.label, self.folder = lab, label, folder
        name = f"{label}-{what}".replace(" ", "-")
        self.root, self.s3 = f"s3://{BUCKET}/{name}", s3
        self.fs = s3fs.S3FileSystem(
            endpoint_url=s3["AWS_ENDPOINT_URL"], key="test", secret="test", use_listings_cache=False
        )
        local = lab.without(label, folder / name)
        for path in sorted(p for p in local.rglob("*") if p.is_file() and p.parts[-2] != ".locks"):
            self.fs.pipe(f"{self.root}/{path.relative_to(local)}", path.read_bytes())
        self.place = lab.expected(label)[2]

    def start(self, port: int | None = None, home: str = "a") -> "object":
        scratch = self.folder / f"tmp-{home}"
        scratch.mkdir(exist_ok=True)
        address = f"http://127.0.0.1:{port}" if port else self.s3["AWS_ENDPOINT_URL"]
        extra = {**self.s3, "AWS_ENDPOINT_URL": address, "TMPDIR": str(scratch)}
        return self.lab.start(self.root, self.label, **extra)  # type: ignore[arg-type]

    def until_claimed(self) -> None:
        """Wait until somebody makes the step's artifact."""
        folder = f"{self.root}/.claims/{self.place.replace('/', '-', 1)}"
        deadline = time.monotonic() + 200
        while not self.fs.exists(folder):
            assert time.monotonic() < deadline, "nobody claims it"
            time.sleep(0.05)

    def check(self, ended: Ended) -> None:
        assert ended.code == 0, ended.error
        if self.label not in TELL_TIMES:
            assert ended.made[self.label][1:] == self.lab.expected(self.label)[1:]


def test_no_answer_for_a_minute(lab: Lab, s3: dict[str, str], tmp_path: Path) -> None:
    """The stage waits, and ends as if nothing had been."""

    def one(label: str) -> None:
        chance = chance_of(label, "outage")
        refuse = chance.random() < 0.5
        bucket = Bucket(lab, s3, tmp_path, label, "outage")
        with WeakLink(urlsplit(s3["AWS_ENDPOINT_URL"]).port or 0) as link:
            process = bucket.start(link.port)
            bucket.until_claimed()
            time.sleep(chance.uniform(0, 1.0 if STEPS[label].stage.own_process else 0.1))
            assert process.poll() is None, "it ended before the outage"  # type: ignore[attr-defined]
            link.cut(OUTAGE_S, refuse)
            ended = lab.end(process)  # type: ignore[arg-type]
        bucket.check(ended)
        how = "refused" if refuse else "silent"
        note(label, "S3 away for 60 s", f"{ended.code} ({how}), {ended.made[label][0]}")

    _all(lab, one)


def test_the_claim_of_a_dead_holder(lab: Lab, s3: dict[str, str], tmp_path: Path) -> None:
    """It lapses after a minute; another machine then makes the artifact."""

    def one(label: str) -> None:
        bucket = Bucket(lab, s3, tmp_path, label, "dead")
        process = bucket.start()
        bucket.until_claimed()
        os.kill(process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        lab.end(process)  # type: ignore[arg-type]
        began = time.monotonic()
        ended = lab.end(bucket.start(home="b"))  # type: ignore[arg-type]
        bucket.check(ended)
        waited = time.monotonic() - began
        note(label, "claim of a dead holder", f"-9 → {ended.made[label][0]} after {waited:.0f} s")

    _all(lab, one)


def _all(lab: Lab, one: object) -> None:
    """Do it for every stage, several at once, since they mostly wait; tell all that went wrong."""
    chosen = os.environ.get("ADVDISTILL_FAULT_STAGES", "").split(",")
    labels = [name for name in STEPS if chosen == [""] or name in chosen]
    lab.expected(labels[-1])
    wrong = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for label, done in [(label, pool.submit(one, label)) for label in labels]:  # type: ignore[arg-type]
            if error := done.exception():
                wrong.append(f"{label}: {error}")
    assert not wrong, "\n".join(wrong)
