"""A stage in a process of its own, so that its memory comes back when it ends.

The parent sends one JSON request on the child's standard input and reads JSON lines from
a pipe: progress events, then the reference or the error. The child dies with its parent
(parent-death signal), and its whole process group is ended when the parent is
interrupted.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from advdistill_core import errors
from advdistill_core.config import DistillConfig
from advdistill_core.errors import AdvDistillError, MachineError, StageError, tells_of_memory
from advdistill_core.processes import die_with_parent, end_group
from advdistill_core.progress import Event, Progress, silent
from advdistill_core.stages import STAGES, Stage, run_stage
from advdistill_core.store import ArtifactRef, Store

_GRACE_S = 20.0
_LOG_TAIL_BYTES = 4000


def run_in_child(
    stage: Stage,
    config: DistillConfig,
    inputs: Mapping[str, ArtifactRef],
    params: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> ArtifactRef:
    """Run a stage as a child process and wait for it.

    Raises:
        AdvDistillError: what the stage raised, or a StageError with the end of the
            child's output when it died.
    """
    request = {
        "stage": stage.name,
        "config": config.model_dump(mode="json"),
        "inputs": {name: ref.model_dump(mode="json") for name, ref in inputs.items()},
        "params": dict(params or {}),
        "parent": os.getpid(),
    }
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as log, os.fdopen(read_end, "r", encoding="utf-8") as events:
        child = subprocess.Popen(
            [sys.executable, "-m", "advdistill_core.child", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
            # Threads that wait must sleep: with spinning ones a second busy process on the
            # machine makes a generation step ten times slower.
            env={
                "OMP_WAIT_POLICY": "passive",
                **os.environ,
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            },
        )
        os.close(write_end)
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
            result = _follow(events, progress)
            child.wait()
        finally:
            end_group(child, _GRACE_S)  # it may checkpoint first
        if result is None:
            raise _died(stage, child.returncode, _tail(log))
        return result


def _follow(events: IO[str], progress: Progress) -> ArtifactRef | None:
    """Read the child's messages until it closes the pipe."""
    result = None
    for line in events:
        try:
            message = json.loads(line)
        except ValueError:  # the last line of a process that was killed
            continue
        if "event" in message:
            progress(Event.model_validate(message["event"]))
        elif "result" in message:
            result = ArtifactRef.model_validate(message["result"])
        elif "error" in message:
            kind = getattr(errors, message["error"], StageError)
            raise kind(*message["args"])
    return result


def _died(stage: Stage, returncode: int, tail: str) -> StageError:
    """What to say of a process that ended without a word."""
    if returncode and tells_of_memory(tail):
        return MachineError(
            f"stage {stage.name}: out of memory ({tail.splitlines()[-1]}). Free some memory, or lower the "
            "batch sizes; what was finished is kept, the same command continues."
        )
    end = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"
    text = f"stage {stage.name}: its process ended with {end}."
    if returncode == -signal.SIGKILL:
        text += " The kernel does that when memory runs out."
    if returncode < 0:
        text += " What was finished is kept, the same command continues."
    return StageError(f"{text}\n{tail}" if tail else text)


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_TAIL_BYTES))
    return log.read().decode(errors="replace").strip()


def main() -> None:
    """Entry of the child process."""
    request = json.loads(sys.stdin.read())
    die_with_parent(request["parent"])
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as pipe:

        def send(message: dict[str, Any]) -> None:
            pipe.write(json.dumps(message) + "\n")

        try:
            config = DistillConfig.model_validate(request["config"])
            ref = run_stage(
                STAGES[request["stage"]],
                config,
                {name: ArtifactRef.model_validate(ref) for name, ref in request["inputs"].items()},
                Store(config.storage.root, config.storage.deep_verify),
                request["params"],
                lambda event: send({"event": event.model_dump(mode="json")}),
            )
        except AdvDistillError as error:
            send({"error": type(error).__name__, "args": [str(a) for a in error.args]})
            sys.exit(1)
        send({"result": ref.model_dump(mode="json")})


if __name__ == "__main__":
    main()
