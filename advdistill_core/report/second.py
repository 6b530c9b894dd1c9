"""Where an independent grader sees a response otherwise: what verdicts alone cannot show."""

from collections.abc import Mapping, Sequence

from advdistill_core.config import RewardsConfig
from advdistill_core.report.gather import Group
from advdistill_core.rewards import Answer, Grader
from advdistill_core.rewards.types import UNDECIDED
from advdistill_core.store import Artifact

Key = tuple[str, int]


def second_opinions(
    groups: Sequence[Group], prompts: Artifact, config: RewardsConfig, count: int
) -> tuple[int, dict[Key, str]]:
    """Ask an independent grader about evenly spaced responses.

    Responses that were cut are wrong by rule, not by what they say; they are left out.

    Args:
        count: most responses to ask about.

    Returns:
        How many have a second opinion, and the verdicts of those that differ from ours.
    """
    asked = {
        row["prompt_id"]: Answer(
            row["task"], row["reference_answer"], "", False, tuple(row["choices"]), row["source"]
        )
        for part in prompts.tables("train")
        for row in part.select(["prompt_id", "task", "reference_answer", "choices", "source"]).to_pylist()
    }
    rows = [
        row
        for group in groups
        for row in group.responses
        if row["verdict"] not in UNDECIDED and row["finish_reason"] == "stop"
    ]
    chosen = rows[:: max(1, -(-len(rows) // count))] if count else []
    if not chosen:
        return 0, {}
    with Grader(config) as grader:
        others = grader.second_opinions([asked[r["prompt_id"]]._replace(text=r["text"]) for r in chosen])
    told = [(row, other.verdict) for row, other in zip(chosen, others, strict=True) if other is not None]
    return len(told), {
        (row["prompt_id"], row["sample_id"]): verdict
        for row, verdict in told
        if (verdict == "correct") != (row["verdict"] == "correct")
    }


def tagged(groups: Sequence[Group], differing: Mapping[Key, str]) -> list[Group]:
    """The groups with `second` in every response: the differing verdict, or None."""
    for group in groups:
        for row in group.responses:
            row["second"] = differing.get((row["prompt_id"], row["sample_id"]))
    return list(groups)
