"""The rubric: a verdict and a response's form, weighed into one reward."""

from advdistill_core.config import RewardsConfig
from advdistill_core.rewards import parts
from advdistill_core.rewards.types import UNDECIDED
from advdistill_core.store.tables import REWARD_PARTS


def score(
    config: RewardsConfig, verdict: str, truncated: bool, text: str, num_tokens: int
) -> dict[str, float | None]:
    """The parts of one response's reward and their weighted sum.

    Source: METHOD section 1. `RewardsConfig` refuses weights under which a wrong response
    could outrank a correct one.

    Args:
        verdict: of the verifier. `timeout` and `error` say nothing about the response:
            every part is None, and so is the reward.
        truncated: a truncated response counts as wrong, whatever the verdict.
        num_tokens: length of the response.

    Returns:
        A value for each of `REWARD_PARTS`, and `reward`.
    """
    if verdict in UNDECIDED:
        return dict.fromkeys((*REWARD_PARTS, "reward"))
    correct = float(verdict == "correct" and not truncated)
    values: dict[str, float | None] = {
        "correct": correct,
        "format": parts.has_structure(text, config.structure),
        "tags": parts.tag_share(text),
        "length": parts.brevity(num_tokens, config.max_len) if correct else 0.0,
        "repetition": parts.repetition(text),
        "steps": parts.step_share(text),
        "overlong": parts.overlong(num_tokens, config.max_len, config.overlong_tokens),
        "equations": parts.equation_share(text),
    }
    values["reward"] = sum(
        (-value if name == "repetition" else value) * getattr(config, name)  # overlong is below 0 itself
        for name, value in values.items()
        if value is not None
    )
    return values
