"""When a re-distilled student replaces the champion."""

from typing import Literal

from advdistill_core.config.base import Section, setting


class RedistillConfig(Section):
    """What counts as new, and as better."""

    champion: str = setting(
        "default",
        "Champion",
        "Name of the line of students; one champion is kept under each name.",
        pattern=r"^[\w.-]{1,80}$",
    )
    min_new_prompts: int = setting(
        1, "Least new prompts", "With fewer unseen training prompts the run ends at once.", ge=1
    )
    start_from: Literal["champion", "student"] = setting(
        "champion", "Start from", "champion: train it further; student: train student.model anew."
    )
    margin: float = setting(
        0.0,
        "Margin",
        "The lower end of the interval of the accuracy difference must lie above this (-1 to 1).",
        ge=-1,
        le=1,
    )
    confidence: float = setting(0.95, "Confidence", "Level of that interval (0 to 1).", gt=0.5, lt=1)
    approval: bool = setting(
        False, "Ask for approval", "Pause before a promotion until a person resumes the run in the UI."
    )
    approval_timeout_s: int = setting(
        86400,
        "Approval timeout",
        "Seconds to wait for a person; then the run fails, and Retry asks again.",
        ge=10,
    )
    notify: str = setting(
        "",
        "Notify",
        "Address that is told each decision by an HTTP POST of JSON; empty for none. Everybody who may "
        "look at the run sees it: put no secret in.",
        pattern=r"^(https?://\S+)?$",
    )
