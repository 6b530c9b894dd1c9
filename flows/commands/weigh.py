"""`advdistill weigh`: weights for rewards that somebody else computed."""

import math
from pathlib import Path

from advdistill_core.config.loading import apply_overrides, build_config
from advdistill_core.errors import InputError
from advdistill_core.rewards.files import Row, read_batches, write_batches
from advdistill_core.weighting import weigh_group

_REMEDY = 'Rows are {"prompt_id": ..., "correct": true, "reward": 1.0}; mend this one.'


def weigh_file(source: Path, target: Path, overrides: list[str] | None = None) -> dict[str, int]:
    """Add `advantage` and `weight` to rows with `prompt_id`, `correct` and `reward`.

    The rows of a prompt need not be together; the order of the rows is kept. `weight`
    includes the prompt's weight. A null reward gives a null advantage and weight 0.

    Args:
        source: a .jsonl or .parquet file.
        target: the .jsonl or .parquet file to write; it appears whole or not at all.
        overrides: `weighting.field=value` settings.

    Returns:
        Counts of rows and of groups, by kind.

    Raises:
        InputError: a setting, or a row that lacks a field or holds a wrong type.
    """
    config = build_config(apply_overrides({}, overrides or [])).weighting
    rows = [_check(where, row) for batch in read_batches(source) for where, row in batch]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    counts = {"rows": len(rows), "groups": len(groups)}
    for members in groups.values():
        group = weigh_group([r["reward"] for r in members], [bool(r["correct"]) for r in members], config)
        counts[group.kind] = counts.get(group.kind, 0) + 1
        for row, advantage, weight in zip(members, group.advantage, group.weight, strict=True):
            row["advantage"] = None if math.isnan(advantage) else float(advantage)
            row["weight"] = float(weight) * group.prompt_weight
    write_batches(target, [rows] if rows else [])
    return counts


def _check(where: str, row: Row) -> Row:
    """Refuse a row that cannot be weighed."""
    for name in ("prompt_id", "correct", "reward"):
        if name not in row:
            raise InputError(where, f"the fields {', '.join(map(str, row))}", f"a field {name}", _REMEDY)
    if not isinstance(row["prompt_id"], str | int):
        raise InputError(f"{where} prompt_id", row["prompt_id"], "a string or an integer", _REMEDY)
    if row["correct"] not in (True, False, None):
        raise InputError(f"{where} correct", row["correct"], "true, false or null", _REMEDY)
    reward = row["reward"]
    if reward is not None and (isinstance(reward, bool) or not isinstance(reward, int | float)):
        raise InputError(f"{where} reward", reward, "a number, or null when it could not be graded", _REMEDY)
    if reward is not None and not math.isfinite(reward):
        raise InputError(f"{where} reward", reward, "a finite number or null", _REMEDY)
    if reward is not None and row["correct"] is None:
        raise InputError(f"{where} correct", None, "true or false beside a reward", _REMEDY)
    return row
