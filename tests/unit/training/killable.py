"""A small training in a process of its own, for the tests that end it.

python killable.py FOLDER [STEP ACTION]: at the end of step STEP the process kills itself
(`kill`), asks itself to stop (`stop`), or kills itself in the middle of writing the
checkpoint of that step (`tear`). With `both` as the action it is left alone, and trains in
two stages with evaluations between. Prints the steps as they end, and last the sha256 of
the final weights and the log.
"""

import hashlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import torch

from advdistill_core.config import RewardsConfig, StudentConfig
from advdistill_core.errors import AdvDistillError
from advdistill_core.training import checkpoints
from advdistill_core.training.heldout import HeldOut
from advdistill_core.training.run import Job, train

CONFIG = StudentConfig(
    learning_rate=1e-2,
    epochs=4,
    groups_per_step=2,
    checkpoint_every_steps=3,
    batch_tokens=40,
    warmup_frac=0.2,
)


BOTH = StudentConfig.model_validate(
    CONFIG.model_dump(exclude={"early_stopping", "negatives", "learning_rate"})
    | {
        "learning_rate": 5e-2,
        "early_stopping": {"every_steps": 5, "metric": "loss", "patience": 3},
        "negatives": {"kind": "unlikelihood", "learning_rate": 5e-3, "epochs": 2, "guard_every_steps": 4,
                      "max_drop": 5.0},
    }
)  # fmt: skip


def helper(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    folder = Path(sys.argv[1])
    at, action = (int(sys.argv[2]), sys.argv[3]) if len(sys.argv) > 2 else (-1, "")
    torch.set_num_threads(1)
    helpers = helper("conftest")
    # dropout, so that the generators' state matters
    model = helpers.build_model("llama", dtype=torch.float32, attention_dropout=0.1)
    started = []

    def progress(event):
        started.append(event.done)
        print("step", event.done, flush=True)
        if event.done == at and action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if event.done == at and action == "stop":
            os.kill(os.getpid(), signal.SIGTERM)

    if action == "tear":
        publish = checkpoints.publish

        def torn(staged, target):
            if staged.name == f"checkpoint-{at}":
                os.kill(os.getpid(), signal.SIGKILL)
            return publish(staged, target)

        checkpoints.publish = torn
    job, config = Job(helpers.build_groups(num_groups=10)), CONFIG
    if action == "both":
        config = BOTH
        paired = helper("test_negatives").pairs(helpers, num_groups=6)
        job = Job(job.groups, paired, HeldOut((), tuple(helpers.build_groups(5, 7)), RewardsConfig()))
    try:
        fitted = train(model, job, config, folder, progress)
    except AdvDistillError as error:
        print(json.dumps({"error": str(error)}))
        return
    digest = hashlib.sha256()
    for name, tensor in sorted(fitted.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    print(
        json.dumps(
            {
                "weights": digest.hexdigest(),
                "log": fitted.log,
                "notes": fitted.notes,
                "first": started[0] if started else None,
            }
        )
    )


if __name__ == "__main__":
    main()
