"""The teachers of a generation: the first one, and those of the mixture."""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advdistill_core.config import TeacherConfig
from advdistill_core.store.fingerprint import canonical_json
from advdistill_core.teachers.backends import model_identity
from advdistill_core.teachers.protocol import Response, Sampling, request_hash, response_seed

Row = dict[str, Any]

#: Sample ids of the n-th further teacher begin at n times this, so that another k of one
#: teacher leaves the samples of the others as they are.
SAMPLE_STEP = 10_000
#: What the teacher column says of a reference solution.
REFERENCE = "reference"
_CHARACTERS_PER_TOKEN = 4  # reference solutions were not generated; their length is estimated

# Fields of the identity that a request hash has in it already, or that belong to no request.
_NOT_OF_A_REQUEST = {
    *("k", "model", "temperature", "top_p", "top_k", "max_new_tokens"),
    *("system", "examples", "mixture", "reference_solutions"),
}


@dataclass(frozen=True)
class Member:
    """One teacher and its share of every prompt's group.

    Args:
        config: the settings of this teacher alone.
        first: the sample id of its first response.
        tag: what tells its shards and seeds from those of others; empty for the first teacher.
    """

    config: TeacherConfig
    first: int
    tag: str
    identity: str

    @property
    def sampling(self) -> Sampling:
        c = self.config
        return Sampling(c.temperature, c.top_p, c.top_k, c.max_new_tokens)

    @property
    def errors_may_pass(self) -> bool:
        """Whether a failed request may be answered another time; a prompt stays too long."""
        return self.config.backend != "transformers"

    def messages(self, asked: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The conversation put to this teacher: its system text and examples before the prompt."""
        system = [dict(m) for m in asked if m["role"] == "system"]
        if self.config.system:
            texts = [self.config.system, *(m["content"] for m in system)]
            system = [{"role": "system", "content": "\n\n".join(texts)}]
        shown = [
            {"role": role, "content": text}
            for example in self.config.examples
            for role, text in (("user", example.question), ("assistant", example.answer))
        ]
        return [*system, *shown, *(dict(m) for m in asked if m["role"] != "system")]

    def seed(self, prompt_id: str, number: int) -> int:
        """The seed of this teacher's `number`-th response (from 0) to a prompt."""
        return response_seed(self.config.seed, f"{prompt_id}/{self.tag}" if self.tag else prompt_id, number)

    def hash(self, rendered: str) -> str:
        """Hash of everything that decides a response beside its own seed.

        The settings that only some requests have (number type, run seed, what a backend
        reads) count when they are not at their defaults.
        """
        plain = request_hash(self.identity, rendered, self.sampling)
        extras = self._extras()
        if not extras:
            return plain
        return hashlib.sha256(canonical_json([plain, extras]).encode()).hexdigest()[: len(plain)]

    def _extras(self) -> dict[str, Any]:
        default = _defaults()
        found = {
            name: value
            for name, value in self.config.identity().items()
            if name not in _NOT_OF_A_REQUEST and value != default.get(name)
        }
        if found.get("backend") == "openai":  # the identity says so
            del found["backend"]
        return found

    def row(self, response: Response, prompt_id: str, hash_: str) -> Row:
        """A row of the responses table."""
        number = response.sample_id
        return {
            "prompt_id": prompt_id,
            "sample_id": self.first + number,
            "text": response.text,
            "finish_reason": response.finish_reason,
            "num_tokens": response.num_tokens,
            "teacher": self.config.model,
            "seed": self.seed(prompt_id, number) if response.seed is None else response.seed,
            "request_hash": hash_,
        }


@functools.cache
def _defaults() -> dict[str, Any]:
    """Every setting at its default; asked for with each prompt."""
    return TeacherConfig().model_dump(mode="json")


def members(config: TeacherConfig) -> list[Member]:
    """The teachers, the first one first."""
    found = [Member(config, 0, "", model_identity(config))]
    for place, further in enumerate(config.mixture, 1):
        own = {name: getattr(further, name) for name in type(further).model_fields}
        # An adapter fits the model that it was made for, which is the first teacher's.
        server = config.vllm.model_copy(update={"lora": ""})
        single = config.model_copy(update={**own, "mixture": [], "more_base_urls": [], "vllm": server})
        tag = hashlib.sha256(canonical_json(further.identity()).encode()).hexdigest()[:8]
        found.append(Member(single, place * SAMPLE_STEP, tag, model_identity(single)))
    return found


def identity(config: TeacherConfig) -> dict[str, Any]:
    """What the responses depend on: models by their content, not by name or folder."""
    found = {**config.identity(), "model": model_identity(config)}
    if config.mixture:
        everybody = members(config)[1:]
        found["mixture"] = [
            {**further.identity(), "model": member.identity}
            for further, member in zip(config.mixture, everybody, strict=True)
        ]
    return found


def group_size(config: TeacherConfig) -> int:
    """Responses to each prompt, all teachers and reference solutions together."""
    further = sum(teacher.k for teacher in config.mixture)
    return config.k + further + int(config.reference_solutions)


def reference_rows(config: TeacherConfig, prompts: Sequence[Row]) -> Iterator[Row]:
    """The reference solutions as responses, if they are wanted."""
    if not config.reference_solutions:
        return
    sample_id = SAMPLE_STEP * (1 + len(config.mixture))
    for prompt in prompts:
        text = prompt["reference_answer"]
        digest = hashlib.sha256(canonical_json([REFERENCE, text]).encode()).hexdigest()
        yield {
            "prompt_id": prompt["prompt_id"],
            "sample_id": sample_id,
            "text": text,
            "finish_reason": "stop",
            "num_tokens": -(-len(text) // _CHARACTERS_PER_TOKEN),
            "teacher": REFERENCE,
            "seed": 0,
            "request_hash": digest[:32],
        }
