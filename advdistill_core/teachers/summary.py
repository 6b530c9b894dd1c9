"""What a finished generation tells of itself in its manifest."""

from collections import Counter
from typing import Any

import pyarrow as pa

from advdistill_core.teachers.members import Member
from advdistill_core.teachers.shards import Facts
from advdistill_core.teachers.spend import price


class Summary:
    """Counts over the shards of an artifact, as they are put together."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.generated = self.prompt_tokens = self.reused = self.reused_tokens = 0
        self.cost = 0.0
        self.is_priced = False
        self.teachers: dict[str, Counter[str]] = {}

    def add(self, member: Member, table: pa.Table) -> None:
        """Count a shard of a teacher."""
        facts = Facts.of(table.schema)
        reasons = Counter[str](table["finish_reason"].to_pylist())
        tokens = sum(table["num_tokens"].to_pylist())
        self.reasons += reasons
        self.generated += tokens - facts.reused_tokens
        self.prompt_tokens += facts.prompt_tokens
        self.reused += facts.reused
        self.reused_tokens += facts.reused_tokens
        self.cost += price(member, tokens - facts.reused_tokens, facts.prompt_tokens)
        self.is_priced |= bool(member.config.prices.prompt or member.config.prices.completion)
        name = f"{member.config.model} ({member.tag})" if member.tag else member.config.model
        mine = self.teachers.setdefault(name, Counter())
        mine.update(
            responses=table.num_rows, tokens=tokens, truncated=reasons["length"], failed=reasons["error"]
        )

    @property
    def num_responses(self) -> int:
        return self.reasons.total()

    def metrics(self, resumed: int) -> dict[str, Any]:
        """Figures of the manifest; shares are of the teachers' responses.

        Args:
            resumed: responses that earlier attempts at this artifact got; the new ones are those
                of the last attempt.
        """
        total = max(1, self.num_responses)
        found: dict[str, Any] = {
            "truncated_frac": self.reasons["length"] / total,
            "error_frac": self.reasons["error"] / total,
            "finish_reasons": dict(sorted(self.reasons.items())),
            "new_responses": self.num_responses - self.reused - resumed,
            "resumed_responses": resumed,
            "reused_responses": self.reused,
            "reused_tokens": self.reused_tokens,
            "prompt_tokens": self.prompt_tokens,
        }
        if self.is_priced:
            found["cost"] = self.cost
        if len(self.teachers) > 1:
            found["teachers"] = {name: dict(counts) for name, counts in self.teachers.items()}
        return found
