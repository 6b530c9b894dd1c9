"""A shard that this process works on: what is there of it, and what is missing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from advdistill_core.teachers.journal import Journal
from advdistill_core.teachers.members import Member, Row
from advdistill_core.teachers.protocol import Response
from advdistill_core.teachers.reuse import Reuse, Wanted, seeds_of_a_request
from advdistill_core.teachers.shards import Claim, Facts


@dataclass
class Job:
    """An open shard.

    Args:
        rendered: the requests' texts, and `hashes` their request hashes, one for each prompt.
        rows: what is there, by the prompt's place and the sample's number.
        replaces: whether its file is there and has errors that are tried again.
    """

    key: str
    member: Member
    prompts: Sequence[Row]
    rendered: Sequence[str]
    hashes: Sequence[str]
    claim: Claim
    journal: Journal
    facts: Facts
    rows: dict[tuple[int, int], Row] = field(default_factory=dict)
    replaces: bool = False

    @classmethod
    def open(
        cls,
        key: str,
        member: Member,
        prompts: Sequence[Row],
        render: Callable[[Sequence[Mapping[str, str]]], str],
        claim: Claim,
        journal: Journal,
    ) -> "Job":
        rendered = [render(member.messages(prompt["messages"])) for prompt in prompts]
        hashes = [member.hash(text) for text in rendered]
        return cls(key, member, prompts, rendered, hashes, claim, journal, Facts(member.tag))

    @property
    def is_complete(self) -> bool:
        return len(self.rows) == len(self.prompts) * self.member.config.k

    @property
    def num_tokens(self) -> int:
        return sum(row["num_tokens"] for row in self.rows.values())

    def ordered(self) -> list[Row]:
        """The rows in the order of prompts and samples."""
        return [self.rows[place] for place in sorted(self.rows)]

    def missing(self, place: int) -> list[int]:
        """Numbers of the samples of a prompt that are not there."""
        return [n for n in range(self.member.config.k) if (place, n) not in self.rows]

    def take_up(self, rows: Iterable[Row]) -> None:
        """Rows that an earlier attempt, or a worker that died, left of this shard.

        Those that are no answer to its requests, or of failed ones, are left out.
        """
        places = {
            (p["prompt_id"], h): i for i, (p, h) in enumerate(zip(self.prompts, self.hashes, strict=True))
        }
        for row in rows:
            # Only a journal's rows carry their account; those of a shard are in its facts.
            prompt_tokens, _ = row.pop("prompt_tokens", None), row.pop("member", None)
            place = places.get((row["prompt_id"], row["request_hash"]))
            number = row["sample_id"] - self.member.first
            if place is None or not 0 <= number < self.member.config.k or (place, number) in self.rows:
                continue
            if row["finish_reason"] == "error":
                continue
            self.rows[place, number] = row
            if prompt_tokens is not None:
                self.facts.tokens += row["num_tokens"]
                self.facts.prompt_tokens += prompt_tokens

    def take_reused(self, reuse: Reuse) -> None:
        """Responses that earlier runs got to the same requests."""
        member = self.member
        for place, prompt in enumerate(self.prompts):
            name = prompt["prompt_id"]
            seeds = seeds_of_a_request(member.seed(name, n) for n in range(member.config.k))
            for number in self.missing(place):
                row = reuse.find(Wanted(name, number, self.hashes[place], seeds))
                if row is not None:
                    self.rows[place, number] = {**row, "sample_id": member.first + number}
                    self.facts.reused += 1
                    self.facts.reused_tokens += row["num_tokens"]

    def take(self, place: int, response: Response) -> bool:
        """Keep a response that has come; False if it was there already."""
        if (place, response.sample_id) in self.rows:
            return False
        row = self.member.row(response, self.prompts[place]["prompt_id"], self.hashes[place])
        self.rows[place, response.sample_id] = row
        if response.finish_reason != "error":
            account = {"prompt_tokens": response.prompt_tokens, "member": self.member.tag}
            self.journal.append({**row, **account})
            self.facts.tokens += response.num_tokens
            self.facts.prompt_tokens += response.prompt_tokens
        return True

    def close(self) -> None:
        self.journal.close()
        self.claim.release()
