"""The stage `select`: the training questions that a line of students has not seen.

Selections form a chain: each holds the ids that it and those before it have used, so that
the next one needs only the last. The held-out questions are those of the first selection,
so that every student of a line is measured on the same ones.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from advdistill_core.config import DistillConfig
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter

_IDS = pa.schema([pa.field("prompt_id", pa.string(), nullable=False)])


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Write `train` (new questions), `heldout` and `seen` (ids of all used so far).

    Args:
        inputs: `prompts`, and `before`, the selection of the current champion, if any.
    """
    before = inputs.get("before")
    seen = _ids(before, "seen") if before else set()
    heldout = _ids(before, "heldout") if before else _ids(inputs["prompts"], "heldout")
    # A question that was added since may have been drawn as a held-out one; here it is not.
    splits = ("train", "heldout") if before else ("train",)
    parts = [part for split in splits for part in inputs["prompts"].tables(split)]
    fresh = [_as_training(_without(part, seen | heldout)) for part in parts]
    out.write_tables(iter(fresh), "train")
    out.write_tables((before or inputs["prompts"]).tables("heldout"), "heldout")
    used = sorted(seen.union(*(part["prompt_id"].to_pylist() for part in fresh)))
    out.write_tables(iter([pa.table({"prompt_id": used}, schema=_IDS)]), "seen")
    num_new = sum(part.num_rows for part in fresh)
    out.note(metrics={"num_new": num_new, "num_seen": len(used), "num_heldout": len(heldout)})
    progress(Event(stage="select", done=num_new, total=num_new, unit="new prompts"))


def _ids(artifact: Artifact, part: str) -> set[str]:
    return {i for table in artifact.tables(part) for i in table["prompt_id"].to_pylist()}


def _without(table: pa.Table, ids: set[str]) -> pa.Table:
    """The rows whose prompt is none of `ids`."""
    return table.filter(pa.array([i not in ids for i in table["prompt_id"].to_pylist()], pa.bool_()))


def _as_training(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("split")
    return table.set_column(
        place, table.schema.field("split"), pa.array(["train"] * table.num_rows, pa.string())
    )
