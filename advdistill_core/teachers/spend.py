"""What a generation has spent, and what it may still ask for.

All attempts and all workers count: what was spent is read from the finished shards and the
journals. A request is let through only if it cannot lead past the budget, however long its
answers become, together with those that are under way; other workers' requests under way
are not known, so that several workers may pass a budget by what they have under way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from advdistill_core.config import TeacherConfig
from advdistill_core.teachers.members import Member
from advdistill_core.teachers.shards import Facts, Shards

_CHARACTERS_PER_TOKEN = 3  # of a prompt whose tokens are not known yet; few, to be safe
_MILLION = 1_000_000


@dataclass
class Amount:
    """Generated tokens and money."""

    tokens: float = 0.0
    money: float = 0.0

    def add(self, other: "Amount", times: float = 1.0) -> None:
        self.tokens += times * other.tokens
        self.money += times * other.money


def price(member: Member, tokens: float, prompt_tokens: float) -> float:
    """Money for a teacher's tokens."""
    prices = member.config.prices
    return (prices.completion * tokens + prices.prompt * prompt_tokens) / _MILLION


class Spend:
    """The account of one generation."""

    def __init__(self, config: TeacherConfig, members: Sequence[Member], shards: Shards) -> None:
        self.budget, self.shards = config.budget, shards
        self.members = {member.tag: member for member in members}
        self.total = Amount()  # as of now
        self.under_way = Amount()
        self._finished: dict[str, Amount] = {}
        self.is_priced = any(m.config.prices.prompt or m.config.prices.completion for m in members)
        self.is_needed = bool(self.is_priced or self.budget.tokens or self.budget.money)

    def recount(self) -> None:
        """Read what has been spent, by whomever."""
        if not self.is_needed:
            return
        for key in self.shards.names() - set(self._finished):
            self._finished[key] = self._of(self.shards.facts(key))
        total = Amount()
        for amount in self._finished.values():
            total.add(amount)
        for row in self.shards.all_journaled():
            total.add(self._of(Facts(row.get("member", ""), row["num_tokens"], row.get("prompt_tokens", 0))))
        self.total = total

    def reserve(self, member: Member, num_samples: int, prompt: str) -> Amount | None:
        """Set the most aside that a request can cost; None if the budget does not allow it.

        Returns:
            The amount per sample, to be given back as the samples arrive.
        """
        most = member.config.max_new_tokens
        money = price(member, most, len(prompt) / _CHARACTERS_PER_TOKEN / num_samples)
        each = Amount(most, money)
        for limit, spent, wanted in (
            (self.budget.tokens, self.total.tokens + self.under_way.tokens, most * num_samples),
            (self.budget.money, self.total.money + self.under_way.money, money * num_samples),
        ):
            if limit and spent + wanted > limit:
                return None
        self.under_way.add(each, num_samples)
        return each

    def settle(self, reserved: Amount, member: Member, tokens: int, prompt_tokens: int) -> None:
        """A sample has arrived."""
        self.under_way.add(reserved, -1)
        self.total.add(Amount(tokens, price(member, tokens, prompt_tokens)))

    def text(self) -> str:
        """What was spent, in words."""
        tokens = f"{self.total.tokens:.0f} tokens"
        return f"{tokens} and {self.total.money:.4g} in money" if self.is_priced else tokens

    def limit_text(self) -> str:
        """The budget, in words."""
        limits = {"tokens": self.budget.tokens, "money": self.budget.money}
        return ", ".join(f"teacher.budget.{name} = {limit:g}" for name, limit in limits.items() if limit)

    def _of(self, facts: Facts) -> Amount:
        member = self.members.get(facts.member)
        money = price(member, facts.tokens, facts.prompt_tokens) if member else 0.0
        return Amount(facts.tokens, money)
