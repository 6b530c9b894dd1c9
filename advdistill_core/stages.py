"""The stages: what each reads, what it is called, and how one is run.

A stage is a function `run(config, inputs, params, out, progress)` that turns artifacts
into one artifact. `run_stage` gives it what all stages share: the fingerprint, reuse of a
finished artifact, the lock, resumption and the manifest.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from advdistill_core.config import DistillConfig
from advdistill_core.errors import AdvDistillError, MachineError, machine_error
from advdistill_core.progress import Event, Progress, silent
from advdistill_core.store import Artifact, ArtifactRef, ArtifactWriter, Store, fingerprint


class StageFunction(Protocol):
    """What a stage's module provides as `run`."""

    def __call__(
        self,
        config: DistillConfig,
        inputs: Mapping[str, Artifact],
        params: Mapping[str, Any],
        out: ArtifactWriter,
        progress: Progress,
    ) -> None: ...


@dataclass(frozen=True)
class Stage:
    """What is known of a stage before it runs.

    Args:
        name: its verb; also the folder of its artifacts.
        version: raised when the same inputs give another output.
        module: where `run` is, and `identity` if the stage depends on more than its
            configuration (a model's weights, a file's content). Imported when needed.
        table: the table that it writes, or None.
        reads: sections of the configuration whose fields decide the result.
        inputs: for each input, the prefix of the parts it reads ("" for all). Of inputs whose
            number varies, such as `scores/NAME`, what stands before the slash is listed.
        own_process: whether it loads a model and so must be a process of its own.
    """

    name: str
    version: str
    module: str
    table: str | None
    reads: tuple[str, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)
    own_process: bool = False

    def function(self) -> StageFunction:
        return importlib.import_module(self.module).run  # type: ignore[no-any-return]


LOAD = Stage("load", "1", "advdistill_core.prompts.stage", "prompts", ("prompts",))
QUESTIONS = Stage("questions", "1", "advdistill_core.evaluation.sets", "prompts", ())
SELECT = Stage("select", "1", "advdistill_core.prompts.select", None, (), {"prompts": "", "before": ""})
GATE_PROMPTS = Stage(
    "gate_prompts", "1", "advdistill_core.evaluation.gate", "prompts", (), {"prompts": "", "sets": "heldout"}
)
GENERATE = Stage(
    "generate", "1", "advdistill_core.teachers.stage", "responses", ("teacher",), {"prompts": "train"}, True
)
GATE_RESPONSES = Stage(
    "gate_responses",
    "1",
    "advdistill_core.evaluation.gate",
    "responses",
    (),
    {"prompts": "", "sets": "heldout", "responses": ""},
)
VERIFY = Stage(
    "verify",
    "1",
    "advdistill_core.rewards.stage",
    "rewards",
    ("rewards",),
    {"prompts": "train", "responses": ""},
)
WEIGH = Stage(
    "weigh",
    "1",
    "advdistill_core.weighting.stage",
    "weights",
    ("weighting",),
    {"responses": "", "rewards": ""},
)
TRAIN = Stage(
    "train",
    "1",
    "advdistill_core.training.stage",
    None,
    ("student",),
    {"prompts": "train", "responses": "", "weights": "", "rewards": ""},
    True,
)
EVALUATE = Stage(
    "evaluate",
    "1",
    "advdistill_core.evaluation.stage",
    "scores",
    ("evaluation",),
    {"prompts": "heldout", "student": ""},
    True,
)
HARNESS = Stage(
    "harness", "1", "advdistill_core.evaluation.harness", None, (), {"student": ""}, own_process=True
)
LIKELIHOOD = Stage(
    "likelihood",
    "1",
    "advdistill_core.evaluation.likelihood",
    None,
    (),
    {"prompts": "train", "responses": "", "rewards": "", "student": ""},
    own_process=True,
)
PUBLISH = Stage(
    "publish",
    "1",
    "advdistill_core.report.stage",
    None,
    ("evaluation",),
    {
        "loaded": "",
        "prompts": "",
        "generated": "",
        "responses": "",
        "rewards": "",
        "weights": "",
        "student": "",
        "scores_before": "",
        "scores_after": "",
        "scores": "",
        "standard": "",
        "likelihoods": "",
    },
)
PUSH = Stage(
    "push",
    "1",
    "advdistill_core.report.push",
    None,
    (),
    {"report": "", "prompts": "", "responses": "", "rewards": "", "weights": "", "student": ""},
)
COMPARE = Stage(
    "compare",
    "1",
    "advdistill_core.report.comparison",
    None,
    (),
    {"weights": "", "students": "", "scores": ""},
)
STAGES = {
    s.name: s
    for s in (
        LOAD,
        QUESTIONS,
        SELECT,
        GATE_PROMPTS,
        GENERATE,
        GATE_RESPONSES,
        VERIFY,
        WEIGH,
        TRAIN,
        EVALUATE,
        HARNESS,
        LIKELIHOOD,
        PUBLISH,
        PUSH,
        COMPARE,
    )
}


@dataclass(frozen=True)
class Plan:
    """A stage with everything that its fingerprint is made of."""

    stage: Stage
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]


def plan_stage(
    stage: Stage,
    config: DistillConfig,
    inputs: Mapping[str, ArtifactRef],
    store: Store,
    params: Mapping[str, Any] | None = None,
) -> Plan:
    """Work out what a stage would produce, without running it.

    Args:
        inputs: a reference for each of the stage's inputs; one may be left out when the
            stage can do without (evaluation of a model that is no artifact).
        params: small JSON values that pick a variant, e.g. which model to evaluate.
    """
    document: dict[str, Any] = {section: getattr(config, section).identity() for section in stage.reads}
    identity: Callable[..., dict[str, Any]] | None = getattr(
        importlib.import_module(stage.module), "identity", None
    )
    if identity is not None:  # e.g. the hash of a file in place of its path
        document.update(identity(config, params or {}))
    document["params"] = dict(params or {})
    hashes = {}
    for name, ref in inputs.items():
        prefix = stage.inputs[name.split("/")[0]]
        hashes[name] = store.open(ref).manifest.content_hash(prefix) if prefix else ref.content_hash
    return Plan(stage, fingerprint(stage.name, stage.version, document, hashes), document, hashes)


def run_stage(
    stage: Stage,
    config: DistillConfig,
    inputs: Mapping[str, ArtifactRef],
    store: Store,
    params: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> ArtifactRef:
    """Produce a stage's artifact, or return the one that is there.

    Two callers that want the same artifact at once produce it once: the second waits, or
    takes a share of the work where the stage can be shared, and takes the first one's.

    Returns:
        A reference whose `outcome` says whether the stage ran, was resumed or was cached.

    Raises:
        MachineError: the disk, the memory or the store failed.
        AdvDistillError: what the stage raises.
    """
    try:
        return _run_stage(stage, config, inputs, store, params, progress)
    except Exception as error:  # want of memory has many names
        told = None if isinstance(error, MachineError) else _machine_error(stage, store, error)
        if told is None:
            raise
        raise told from error


def _machine_error(stage: Stage, store: Store, error: Exception) -> MachineError | None:
    """The one line for a failure of the machine, also where a library has its own words for it.

    Of a model whose files are gone with the store's disk they are that its name is no name of the Hub,
    and our own that there is no such folder.
    """
    what = f"stage {stage.name}"
    if not isinstance(error, AdvDistillError) and (told := machine_error(what, error)):
        return told
    try:
        store.files.check_root()
    except OSError as gone:
        return machine_error(what, gone)
    return None


def _run_stage(
    stage: Stage,
    config: DistillConfig,
    inputs: Mapping[str, ArtifactRef],
    store: Store,
    params: Mapping[str, Any] | None,
    progress: Progress,
) -> ArtifactRef:
    plan = plan_stage(stage, config, inputs, store, params)
    found = store.find(stage.name, plan.fingerprint)
    if found:
        store.tidy(found)
        return found

    def waiting() -> None:
        progress(Event(stage=stage.name, done=0, total=0, unit="", message="another run is producing this"))
        assist = getattr(importlib.import_module(stage.module), "assist", None)
        if assist is not None:
            opened = {name: store.open(ref) for name, ref in inputs.items()}
            assist(config, opened, params or {}, store, plan.fingerprint, progress)

    for ref in inputs.values():
        store.open(ref)  # before anything is written: without them this is not the root it was
    with store.lock(stage.name, plan.fingerprint, waiting):
        found = store.find(stage.name, plan.fingerprint)
        if found:
            return found
        out = store.begin(stage.name, stage.version, plan.fingerprint, stage.table)
        opened = {name: store.open(ref) for name, ref in inputs.items()}
        stage.function()(config, opened, params or {}, out, progress)
        return out.commit(plan.inputs, plan.config)
