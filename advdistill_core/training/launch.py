"""Training in several processes, by `accelerate launch`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advdistill_core import errors
from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import StageError
from advdistill_core.progress import Event, Progress
from advdistill_core.training.run import Job
from advdistill_core.training.worker import die_with_parent

_POLL_S = 0.2
_LOG_TAIL_BYTES = 4000


def fit_in_processes(work: Job, config: StudentConfig, job: Path, progress: Progress) -> dict[str, Any]:
    """Train with `config.num_processes` processes.

    Args:
        work: what the student is trained on.
        job: a folder for what the processes exchange; checkpoints go beside it. The
            trained model is in its `model` afterwards.

    Returns:
        `log`, `shared`, `fused` and `notes` as in `fit.Fitted`, and the `world_size` that took part.

    Raises:
        StageError: what a process raised, or the end of their output when one died.
    """
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir()
    (job / "config.json").write_text(config.model_dump_json(), "utf-8")
    (job / "work.json").write_text(work.to_json(), "utf-8")
    (job / "messages.jsonl").touch()
    with open(job / "output.txt", "wb") as output:
        launcher = subprocess.Popen(
            launch_command(config, job),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        before = _pass_on_stop_requests(launcher)
        try:
            for message in _messages(job / "messages.jsonl", launcher):
                if "event" in message:
                    progress(Event.model_validate(message["event"]))
                else:
                    raise getattr(errors, message["error"], StageError)(*message["args"])
        finally:
            _end(launcher)
            if before is not None:
                signal.signal(signal.SIGTERM, before)
    if launcher.returncode != 0 or not (job / "result.json").exists():
        tail = (job / "output.txt").read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        raise StageError(f"training processes: exit code {launcher.returncode}, expected 0.\n{tail.strip()}")
    result: dict[str, Any] = json.loads((job / "result.json").read_text("utf-8"))
    return result


def launch_command(config: StudentConfig, job: Path) -> list[str]:
    """The command line of `accelerate launch`; every choice is given, no file is read."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
    command += ["--num_processes", str(config.num_processes), "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "--main_process_port", "0"]
    if config.sharding == "fsdp":
        command += ["--use_fsdp", "--fsdp_version", "2", "--fsdp_state_dict_type", "FULL_STATE_DICT"]
        command += ["--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
    else:
        command += ["--multi_gpu"]  # the processes themselves choose gloo where there is no GPU
    return [*command, "-m", "advdistill_core.training.worker", str(job)]


def _pass_on_stop_requests(launcher: "subprocess.Popen[bytes]") -> Any:
    """Let the processes write their checkpoint before this one ends.

    Returns:
        The handler that was there; None outside the main thread, where no signal arrives.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, lambda *_: launcher.send_signal(signal.SIGTERM))


def _environment() -> dict[str, str]:
    return {**os.environ, "TOKENIZERS_PARALLELISM": "false"}


def _messages(path: Path, launcher: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """What the first process writes, until the launcher has ended."""
    with open(path, encoding="utf-8") as lines:
        pending = ""
        while True:
            ended = launcher.poll() is not None
            pending += lines.read()
            *whole, pending = pending.split("\n")
            yield from (json.loads(line) for line in whole)
            if ended:
                return
            time.sleep(_POLL_S)


def _end(launcher: "subprocess.Popen[bytes]") -> None:
    """End the launcher, which ends its processes; they write a checkpoint first."""
    if launcher.poll() is None:
        launcher.send_signal(signal.SIGTERM)
        try:
            launcher.wait(60)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
