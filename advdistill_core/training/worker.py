"""One of several training processes, started by `accelerate launch` (see `launch`)."""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import AdvDistillError, StageError
from advdistill_core.progress import Event

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def trains_on_cpu(config: StudentConfig) -> bool:
    """Whether the processes have no GPU, or are told not to use it."""
    import torch

    return config.device == "cpu" or not torch.cuda.is_available()


def main() -> None:
    """Train as the job folder says; the first process reports into it."""
    die_with_parent()  # the launcher puts us in a session of our own, where no group signal arrives
    job = Path(sys.argv[1])
    first = os.environ.get("RANK", "0") == "0"
    with open(job / "messages.jsonl", "a" if first else "r", encoding="utf-8") as out:

        def tell(message: dict[str, Any]) -> None:
            if first:
                out.write(json.dumps(message) + "\n")
                out.flush()

        try:
            _train(job, lambda event: tell({"event": event.model_dump(mode="json")}), first)
        except AdvDistillError as error:
            tell({"error": type(error).__name__, "args": [str(a) for a in error.args]})
            sys.exit(1)


def _train(job: Path, progress: Any, first: bool) -> None:
    from advdistill_core import models
    from advdistill_core.training.run import Job, train
    from advdistill_core.training.student import load_student, save_student

    config = StudentConfig.model_validate_json((job / "config.json").read_text("utf-8"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != config.num_processes:
        raise StageError(f"training processes: got {world_size}, expected {config.num_processes}.")
    work = Job.from_json((job / "work.json").read_text("utf-8"))
    device = "cpu" if trains_on_cpu(config) else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    model = load_student(config, device)
    tokenizer = models.load_tokenizer(config.model, config.trust_remote_code) if work.heldout else None
    folder = job.parent / "checkpoints"
    fitted = train(model, work, config, folder, progress if first else _nothing, tokenizer)
    if first:
        save_student(fitted.model, job / "model", fitted.state)
        result = {
            "log": fitted.log, "shared": fitted.shared, "fused": fitted.fused,
            "notes": fitted.notes, "world_size": world_size,
        }  # fmt: skip
        (job / "result.json").write_text(json.dumps(result), "utf-8")


def _nothing(event: Event) -> None:
    """Only the first process shows progress."""


if __name__ == "__main__":
    main()
