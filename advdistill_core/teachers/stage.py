"""The stage `generate`: sampled responses of the teachers to every training prompt."""

from collections.abc import Mapping
from typing import Any

from advdistill_core.config import DistillConfig
from advdistill_core.errors import StageError
from advdistill_core.models import pairing
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter, Store
from advdistill_core.teachers import members
from advdistill_core.teachers.work import Generation


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Responses depend on the models' content, not on the names or folders they go by."""
    return {"teacher": members.identity(config.teacher)}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Make what is missing, then put the shards together.

    Raises:
        StageError: there is no training prompt.
        BudgetError: what is missing does not fit into `teacher.budget`.
        ErrorRateError: more requests than `teacher.max_error_frac` failed.
    """
    work = Generation(config, inputs["prompts"], out.store, out.folder, progress)
    if not work.num_prompts:
        raise StageError("stage generate: got no training prompt, expected at least one.")
    for remark in pairing.remarks(config):
        progress(Event(stage="generate", done=0, total=work.total, unit="responses", message=remark))
    try:
        work.fill()
    finally:
        work.close()
    out.write_tables(work.tables())
    work.told_all()
    out.note(tokens={"generated": work.summary.generated}, metrics=work.summary.metrics(work.resumed))


def assist(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    store: Store,
    fingerprint: str,
    progress: Progress,
) -> None:
    """Work on the shards of an artifact that another process is making.

    Returns when nothing is left to do, or at once if the generation is not to be shared
    (`teacher.workers` is 1). Raises as `run` does.
    """
    if config.teacher.workers == 1:
        return

    def is_over() -> bool:
        return store.find("generate", fingerprint) is not None

    work = Generation(config, inputs["prompts"], store, f"generate/{fingerprint}", progress, is_over)
    try:
        work.fill()
    finally:
        work.close()
