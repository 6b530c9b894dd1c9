"""From the tables to training rows: what is trained, as the student's tokens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from advdistill_core.config.student import StudentConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.models import chat
from advdistill_core.store import Artifact
from advdistill_core.training.rows import Group, Row

_COLUMNS = ["prompt_id", "sample_id", "text", "finish_reason"]
Key = tuple[str, int]


@dataclass(frozen=True)
class TrainingData:
    """Groups in the order of the responses, and what was left out.

    Args:
        groups: those with at least one trained response.
        num_rows: trained responses.
        heldout: groups of the prompts that are kept back.
        too_long: responses with weight that are longer than `student.max_seq_tokens`.
        empty: responses with weight that hold no token to learn.
    """

    groups: list[Group]
    num_rows: int
    heldout: list[Group]
    too_long: list[Key]
    empty: list[Key]


def read_weights(weights: Artifact, negatives: bool = False) -> dict[Key, float]:
    """Weight times prompt weight of every response that is trained on.

    Args:
        negatives: whether a second stage takes the responses with a negative weight, which
            this one leaves out.

    Raises:
        InputError: a weight is negative, whose loss would have no bound.
    """
    found: dict[Key, float] = {}
    for table in weights.tables():
        for row in table.to_pylist():
            weight = row["weight"] * row["prompt_weight"]
            if weight < 0 and not negatives:
                raise InputError(
                    f"weight of prompt {row['prompt_id']} sample {row['sample_id']}",
                    weight,
                    "0 or more",
                    "The scheme linear gives negative weights, whose loss has no bound. Choose another "
                    "weighting.scheme, such as positive, or bounded student.negatives.",
                )
            if weight > 0:
                found[row["prompt_id"], row["sample_id"]] = weight
    return found


def why_nothing(metrics: Mapping[str, Any]) -> str:
    """Why no response has any weight, from the metrics of the weights."""
    counts = ", ".join(
        f"{metrics[name]} {name.replace('_', ' ')}"
        for name in ("all_wrong", "ungradable", "all_correct", "mixed")
        if name in metrics
    )
    return (
        f"nothing to train on: every group was dropped ({counts or 'the weights table has no weight'}). "
        "The teacher needs some correct answers: take easier prompts, a larger teacher.k or a better teacher."
    )


def read_groups(
    prompts: Artifact,
    responses: Artifact,
    wanted: Mapping[Key, float],
    tokenizer: Any,
    config: StudentConfig,
    kept_back: frozenset[str] = frozenset(),
) -> TrainingData:
    """Tokenize the responses that have weight, with the student's tokenizer.

    The end token is learned only after a response that came to its end by itself.

    Args:
        kept_back: prompts that are not trained on.

    Raises:
        StageError: nothing is left to train on.
    """
    prompt_of = PromptIds(prompts, tokenizer)
    rows: dict[str, list[Row]] = {}
    too_long: list[Key] = []
    empty: list[Key] = []
    for response in _rows_with_weight(responses, wanted):
        name, key = response["prompt_id"], (response["prompt_id"], response["sample_id"])
        completion = encode_completion(tokenizer, response["text"], response["finish_reason"] == "stop")
        if not completion:
            empty.append(key)
        elif len(prompt_of[name]) + len(completion) > config.max_seq_tokens:
            too_long.append(key)
        else:
            rows.setdefault(name, []).append(Row(completion, wanted[key]))
    everything = [Group(name, prompt_of[name], tuple(members)) for name, members in rows.items()]
    groups = [group for group in everything if group.prompt_id not in kept_back]
    heldout = [group for group in everything if group.prompt_id in kept_back]
    if not groups:
        raise StageError(
            f"nothing to train on: of {len(wanted)} responses with weight {len(too_long)} are longer than "
            f"student.max_seq_tokens={config.max_seq_tokens} and {len(empty)} are empty"
            + (f", and {len(heldout)} prompts are kept back." if heldout else ".")
        )
    return TrainingData(groups, sum(len(g.rows) for g in groups), heldout, too_long, empty)


class PromptIds:
    """The token ids of training prompts, each rendered when it is first asked for."""

    def __init__(self, prompts: Artifact, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.messages = {
            row["prompt_id"]: row["messages"]
            for table in prompts.tables("train")
            for row in table.select(["prompt_id", "messages"]).to_pylist()
        }
        self._found: dict[str, tuple[int, ...]] = {}

    def text(self, name: str) -> str:
        return chat.render(self.tokenizer, self.messages[name])

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self._found:
            self._found[name] = tuple(chat.encode(self.tokenizer, [self.text(name)])[0])
        return self._found[name]


def encode_completion(tokenizer: Any, text: str, ended: bool) -> tuple[int, ...]:
    """Token ids of a response, with the end token if it came to its end."""
    ids = chat.encode_plain(tokenizer, text)
    return tuple([*ids, tokenizer.eos_token_id] if ended else ids)


def _rows_with_weight(responses: Artifact, wanted: Mapping[Key, float]) -> Iterator[dict[str, Any]]:
    """Responses that are trained on.

    Raises:
        StageError: a weight belongs to no response.
    """
    missing = set(wanted)
    for table in responses.tables():
        for row in table.select(_COLUMNS).to_pylist():
            key = row["prompt_id"], row["sample_id"]
            if key in wanted:
                missing.discard(key)
                yield row
    if missing:
        raise StageError(
            f"weights: got a row for {min(missing)}, expected only prompts and samples of the responses."
        )
