"""The stage `weigh`: rewards and responses in, a weight for every response out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ArtifactError
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter, tables
from advdistill_core.weighting.groups import GroupWeights, weigh_group
from advdistill_core.weighting.schemes import effective_sample_size

_FLUSH_ROWS = 8192
_MAX_IDS = 1000

Row = dict[str, Any]


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Weigh group by group; one part of each table is in memory at a time."""
    totals = Totals()
    expected = inputs["rewards"].manifest.rows

    def weighed() -> Iterator[pa.Table]:
        rows: list[Row] = []
        for prompt_id, responses, rewards in paired_groups(inputs["responses"], inputs["rewards"]):
            group = weigh_group(
                [r["reward"] for r in rewards],
                [r["verdict"] == "correct" for r in rewards],
                config.weighting,
                [(r["text"], r["finish_reason"] == "stop") for r in responses],
            )
            totals.add(prompt_id, group, [r["verdict"] == "correct" for r in rewards])
            rows += weight_rows(prompt_id, [r["sample_id"] for r in rewards], group)
            if len(rows) >= _FLUSH_ROWS:
                progress(Event(stage="weigh", done=totals.rows, total=expected, unit="responses"))
                yield tables.from_rows(rows, tables.WEIGHTS)
                rows = []
        yield tables.from_rows(rows, tables.WEIGHTS)

    out.write_tables(weighed())
    out.note(metrics=totals.metrics())
    progress(Event(stage="weigh", done=totals.rows, total=expected, unit="responses"))


def paired_groups(responses: Artifact, rewards: Artifact) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """The groups of both tables side by side.

    Raises:
        ArtifactError: the tables do not hold the same responses in the same order, or a
            group's rows are not together.
    """
    left = _groups(responses, ["prompt_id", "sample_id", "text", "finish_reason"])
    right = _groups(rewards, ["prompt_id", "sample_id", "verdict", "reward"])
    seen: set[str] = set()
    for prompt_id, graded in right:
        _, written = next(left, ("", []))
        keys = [[(r["prompt_id"], r["sample_id"]) for r in side] for side in (written, graded)]
        if keys[0] != keys[1] or prompt_id in seen:
            raise ArtifactError(
                f"rewards of prompt {prompt_id}: got the rows {keys[1][:3]}..., expected those of the "
                f"responses, {keys[0][:3]}..., once and in the same order. Verify the responses again."
            )
        seen.add(prompt_id)
        yield prompt_id, written, graded
    if extra := next(left, None):
        raise ArtifactError(f"responses of prompt {extra[0]}: got no rewards, expected one each.")


def _groups(artifact: Artifact, columns: list[str]) -> Iterator[tuple[str, list[Row]]]:
    """Consecutive rows of a prompt, also where they straddle two parts."""
    rows = (
        row
        for table in artifact.tables()
        for batch in table.select(columns).to_batches(max_chunksize=_FLUSH_ROWS)
        for row in batch.to_pylist()
    )
    for prompt_id, group in groupby(rows, key=lambda row: row["prompt_id"]):
        yield prompt_id, list(group)


def weight_rows(prompt_id: str, sample_ids: list[int], group: GroupWeights) -> list[Row]:
    """The rows of the weights table for one group."""
    return [
        {
            "prompt_id": prompt_id,
            "sample_id": sample_id,
            "advantage": None if np.isnan(group.advantage[i]) else float(group.advantage[i]),
            "weight": float(group.weight[i]),
            "prompt_weight": group.prompt_weight,
            "merged_into": None if (m := group.merged_into[i]) is None else sample_ids[m],
        }
        for i, sample_id in enumerate(sample_ids)
    ]


def why_dropped(group: GroupWeights) -> str:
    """Why nothing of a group is trained on."""
    if group.kind == "ungradable":
        return "without any verdict"
    if group.prompt_weight == 0 and group.weight.any():
        return "too easy or too hard (prompt_weight difficulty)"
    names = {"all_wrong": "all wrong", "all_correct": "all correct (dropped by the settings)"}
    return names.get(group.kind, "without a weight above 0")


class Totals:
    """What the weights are like over all groups."""

    def __init__(self) -> None:
        self.rows = 0
        self.kinds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.dropped_because: Counter[str] = Counter()
        self.ungradable_ids: list[str] = []
        # by (number correct, number gradable): groups, summed effective size, summed share
        self._by_pass: dict[tuple[int, int], list[float]] = {}
        self._weight = self._weight_on_correct = 0.0

    def add(self, prompt_id: str, group: GroupWeights, correct: list[bool]) -> None:
        self.rows += len(group.weight)
        self.kinds[group.kind] += 1
        self.counts["dropped_groups"] += group.dropped
        if group.dropped:
            self.dropped_because[why_dropped(group)] += 1
        self.counts["ungradable_responses"] += int(np.isnan(group.advantage).sum())
        self.counts["merged_responses"] += sum(m is not None for m in group.merged_into)
        self.counts["slight_responses"] += group.slight
        self.counts["trained_responses"] += 0 if group.dropped else int((group.weight > 0).sum())
        if group.kind == "ungradable" and len(self.ungradable_ids) < _MAX_IDS:
            self.ungradable_ids.append(prompt_id)
        if not group.dropped:
            self._add_weights(group, np.array(correct, dtype=bool))

    def _add_weights(self, group: GroupWeights, correct: np.ndarray) -> None:
        weight = np.maximum(group.weight, 0.0)
        on_correct, gradable = float(weight[correct].sum()), ~np.isnan(group.advantage)
        self._weight += group.prompt_weight * float(weight.sum())
        self._weight_on_correct += group.prompt_weight * on_correct
        sums = self._by_pass.setdefault((int((correct & gradable).sum()), int(gradable.sum())), [0, 0.0, 0.0])
        sums[0] += 1
        sums[1] += effective_sample_size(group.weight)
        sums[2] += on_correct / float(weight.sum())

    def metrics(self) -> dict[str, Any]:
        """Counts; over the groups that are trained on, the mean effective number of responses
        and the share (0 to 1) of the weight on correct ones, also by number correct."""
        names = (
            *("dropped_groups", "ungradable_responses"),
            *("slight_responses", "merged_responses", "trained_responses"),
        )
        trained = sum(sums[0] for sums in self._by_pass.values())
        size = sum(sums[1] for sums in self._by_pass.values())
        return {
            "num_groups": sum(self.kinds.values()),
            "num_responses": self.rows,
            **{kind: self.kinds[kind] for kind in ("mixed", "all_correct", "all_wrong", "ungradable")},
            **{name: self.counts[name] for name in names},
            "dropped_because": dict(sorted(self.dropped_because.items())),
            "ungradable_ids": self.ungradable_ids,
            "effective_sample_size": size / trained if trained else 0.0,
            "weight_on_correct_frac": self._weight_on_correct / self._weight if self._weight else 0.0,
            "by_num_correct": [
                {
                    "num_correct": correct,
                    "num_gradable": gradable,
                    "num_groups": int(n),
                    "effective_sample_size": size / n,
                    "weight_on_correct_frac": share / n,
                }
                for (correct, gradable), (n, size, share) in sorted(self._by_pass.items())
            ],
        }
