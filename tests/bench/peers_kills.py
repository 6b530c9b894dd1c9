"""Killed half-way and started again; and run again when finished: ours, distilabel, curator.

    python tests/bench/peers_kills.py kills PEERS_PYTHON [--peer curator] [--kills 5] [--num 400]
    python tests/bench/peers_kills.py rerun PEERS_PYTHON

`kills`: a generation of short answers from an endpoint on loopback that counts what it is asked.
When it has answered 40 to 60 % (another share each time) the process group gets SIGKILL; then
the same command runs again, for as long as three undisturbed runs. It has recovered if it ends
by itself with every row, once, and the right answer in each. Requests are those of both runs,
against the number of rows, which is what one pass takes.

`rerun`: the same command once more after it has finished; ours is the whole recipe `smoke`,
beside a Prefect flow that does nothing, which pays for the same imports.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from peers_endpoint import Endpoint
from peers_pipelines import answer, questions
from rows import Row, tell

HERE = Path(__file__).parent
PEERS = ("distilabel", "curator")
CONCURRENCY, SHARD = 32, 32
ANSWER_S, AT_ONCE = 0.05, 8


class Command:
    """One program's generation into a folder, as its user starts it."""

    def __init__(self, name: str, peers: str, endpoint: Endpoint, folder: Path, num: int) -> None:
        self.endpoint, self.log = endpoint, folder / "log"
        python, script = (sys.executable, __file__) if name == "ours" else (peers, "peers_pipelines.py")
        target = str(folder / "work")
        self.line = [python, str(HERE / script), name, endpoint.url, target, str(num)]
        folder.mkdir(parents=True)

    def start(self) -> "subprocess.Popen[bytes]":
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                self.line, stdout=subprocess.PIPE, stderr=log, start_new_session=True, cwd=self.log.parent
            )

    def kill_at(self, num_asked: int) -> bool:
        """Start it and kill it when the endpoint has answered so many; whether it still ran."""
        process = self.start()
        while self.endpoint.num_asked < num_asked and process.poll() is None:
            time.sleep(0.005)
        ran = process.poll() is None
        end(process)
        return ran

    def finish(self, limit_s: float) -> dict[str, Any]:
        """Run it; `rows` and `right` as it says, or why there are none."""
        process, began = self.start(), time.monotonic()
        try:
            out, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            end(process)
            return {"failure": "hung"}
        finally:
            end(process)
        taken = {"seconds": time.monotonic() - began}
        if process.returncode:
            return {"failure": f"crashed ({self.last_words()})", **taken}
        return {**json.loads(out.splitlines()[-1]), **taken}

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line for line in lines if line[:1].isalpha() and "Error" in line.split(":")[0]]
        return (errors or lines or ["no words"])[-1][:100]


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to it and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Trials(NamedTuple):
    """What came of several kills of one program."""

    kills: int
    recovered: int
    passes: list[float]  # requests of both runs by rows, of the trials that recovered
    failures: list[str]

    def say(self) -> str:
        said = f"{self.recovered} of {self.kills} recover"
        if self.passes:
            said += f", {statistics.mean(self.passes):.2f} passes (at most {max(self.passes):.2f})"
        causes = {cause: self.failures.count(cause) for cause in self.failures}
        return "; ".join([said, *(f"{count} {cause}" for cause, count in causes.items())])


def trials(name: str, arguments: argparse.Namespace, folder: Path) -> Trials:
    """Kill one program again and again, each time in a fresh folder."""
    num = arguments.num
    with Endpoint(ANSWER_S, AT_ONCE) as endpoint:
        whole = Command(name, arguments.peers, endpoint, folder / f"{name}-whole", num).finish(600)
    print(name, "undisturbed", whole, flush=True)
    if whole.get("right") != num:
        sys.exit(f"{name}: its undisturbed run gave {whole}")
    recovered, passes, failures = 0, [], []
    for number in range(arguments.kills):
        share = 0.4 + 0.2 * (number + 0.5) / arguments.kills
        with Endpoint(ANSWER_S, AT_ONCE) as endpoint:
            command = Command(name, arguments.peers, endpoint, folder / f"{name}-{number}", num)
            if not command.kill_at(round(share * num)):
                sys.exit(f"{name}: it ended before it could be killed: {command.last_words()}")
            before = endpoint.num_asked
            found = command.finish(max(60.0, 3 * whole["seconds"]))
            spent = endpoint.num_asked / num
        print(name, f"killed at {before}", found, f"{spent:.2f} passes", flush=True)
        if found.get("rows") == found.get("right") == num:
            recovered += 1
            passes.append(spent)
        else:
            failures.append(found.get("failure") or f"{found['right']} of {num} rows as if finished")
    return Trials(arguments.kills, recovered, passes, failures)


def kills(arguments: argparse.Namespace, folder: Path) -> None:
    ours = trials("ours", arguments, folder)
    most = 1 + SHARD / arguments.num
    for name in arguments.peer or PEERS:
        theirs = trials(name, arguments, folder)
        tell(
            Row(
                "SIGKILL at about half, the same command again", name, ours.say(), theirs.say(),
                None, f"all recover, at most {most:.2f} passes, the same rows",
                ours.recovered == ours.kills and max(ours.passes) <= most,
                f"{arguments.num} short answers; {release(arguments.peers, name)}",
            )
        )  # fmt: skip


def rerun(arguments: argparse.Namespace, folder: Path) -> None:
    root, line = folder / "store", [sys.executable, "-m", "flows.cli", "run", "smoke", "--json", "--root"]
    subprocess.run([*line, str(root)], check=True, capture_output=True)
    empty = [sys.executable, "-c", "from prefect import flow\n@flow\ndef empty(): pass\nempty()"]
    taken: dict[str, list[float]] = {"ours": [], "empty": []}
    for _ in range(3):
        for name, command in (("empty", empty), ("ours", [*line, str(root)])):
            began = time.monotonic()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            taken[name].append(time.monotonic() - began)
    stages = json.loads(done.stdout.splitlines()[-1])["stages"]
    cached = sum(stage["outcome"] == "cached" for stage in stages.values())
    ours_s, empty_s = statistics.median(taken["ours"]), statistics.median(taken["empty"])
    said = f"{ours_s:.1f} s, an empty flow {empty_s:.1f} s; {cached} of {len(stages)} stages cached"
    for name in arguments.peer or PEERS:
        with Endpoint(ANSWER_S, AT_ONCE) as endpoint:
            command = Command(name, arguments.peers, endpoint, folder / name, arguments.num)
            first, again = command.finish(600), [command.finish(600) for _ in range(3)]
            asked = endpoint.num_asked - arguments.num
        print(name, first, again, flush=True)
        theirs_s = statistics.median(one["seconds"] for one in again)
        tell(
            Row(
                "re-run of what is finished", name, said, f"{theirs_s:.1f} s, {asked} requests",
                theirs_s / ours_s, "every stage cached, at most 3 s more than Prefect's start",
                cached == len(stages) and ours_s - empty_s <= 3,
                "ours is a whole distillation, theirs one generation; server running; "
                + release(arguments.peers, name),
            )
        )  # fmt: skip


def release(python: str, name: str) -> str:
    package = {"curator": "bespokelabs-curator"}.get(name, name)
    ask = f"import importlib.metadata as m; print(m.version('{package}'))"
    return f"{name} " + subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip()


def generate(url: str, folder: str, num: int) -> None:
    """Ours: the flow `generate`, as the peers' pipelines do it, with Prefect's records."""
    from flows.server import connect

    connect()
    from advdistill_core.config import DistillConfig
    from advdistill_core.store import Store
    from flows.generate import generate_flow

    path = Path(folder) / "questions.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"question": question, "answer": "0"}) for question in [*questions(num), "?"]]
    path.write_text("\n".join(lines), encoding="utf-8")
    config = DistillConfig.model_validate(
        {
            "prompts": {"source": "file", "path": str(path), "num_train": num, "num_heldout": 1},
            "teacher": {
                "backend": "openai", "model": "m", "base_url": url, "k": 1,
                "concurrency": CONCURRENCY, "shard_size": SHARD,
            },
            "storage": {"root": str(Path(folder) / "store")},
        }
    )  # fmt: skip
    generate_flow(config)
    store = Store(config.storage.root)
    (made,) = Path(folder).glob("store/generate/*/manifest.json")
    ref = store.find("generate", made.parent.name)
    assert ref is not None
    asked = {}
    (loaded,) = Path(folder).glob("store/load/*/manifest.json")
    found = store.find("load", loaded.parent.name)
    assert found is not None
    for row in store.open(found).table("train").to_pylist():
        asked[row["prompt_id"]] = row["messages"][-1]["content"]
    rows = store.open(ref).table().to_pylist()
    right = {row["prompt_id"] for row in rows if row["text"] == answer(asked[row["prompt_id"]])}
    print(json.dumps({"rows": len(rows), "right": len(right)}))


@contextmanager
def home(folder: Path) -> Iterator[None]:
    """A Prefect server of this bench alone, started before anything is timed."""
    from flows.server import LocalServer

    for name in [name for name in os.environ if name.startswith(("PREFECT_", "ADVDISTILL_"))]:
        del os.environ[name]
    os.environ |= {
        "ADVDISTILL_HOME": str(folder / "home"),
        "HOME": str(folder),
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    (folder / "home").mkdir()
    server = LocalServer(folder / "home")
    os.environ["PREFECT_API_URL"] = server.start(tied=True)
    os.environ.update(server.environment())
    try:
        server.wait()
        yield
    finally:
        server.stop()


def main() -> None:
    if sys.argv[1] == "ours":
        generate(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kills", "rerun"])
    parser.add_argument("peers", help="interpreter with distilabel and curator")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--num", type=int, default=400)
    parser.add_argument("--peer", action="append", choices=PEERS)
    arguments = parser.parse_args()
    arguments.peers = str(Path(arguments.peers).absolute())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, home(Path(name)):
        {"kills": kills, "rerun": rerun}[arguments.what](arguments, Path(name))


if __name__ == "__main__":
    main()
