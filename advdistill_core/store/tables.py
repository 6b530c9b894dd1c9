"""The five tables: their columns, and Parquet files that notice damage."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from advdistill_core.errors import ArtifactError

SCHEMA_VERSION = "1"
ROWS_PER_PART = 10_000  # what a stage holds of a table while it writes or reads it

_message = pa.struct([("role", pa.string()), ("content", pa.string())])

#: prompts: a row per question. `messages` is the conversation put to a model, before any
#: chat template; `split` is train or heldout; `choices` is empty unless multiple choice.
PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("messages", pa.list_(_message), nullable=False),
        pa.field("reference_answer", pa.string(), nullable=False),
        pa.field("choices", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)

#: responses: a row per sample of a prompt's group. `finish_reason` is stop, length or
#: error; `num_tokens` counts generated tokens, the end token included.
RESPONSES = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("request_hash", pa.string(), nullable=False),
    ]
)

#: rewards: `verdict` is correct, wrong, unparsed, timeout or error. The parts and `reward`
#: are null where the answer could not be graded (never 0 for a failed check).
REWARD_PARTS = ("correct", "format", "tags", "length", "repetition", "steps", "overlong", "equations")
REWARDS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.int32(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("extracted", pa.string()),
        pa.field("truncated", pa.bool_(), nullable=False),
        *[pa.field(part, pa.float64()) for part in REWARD_PARTS],
        pa.field("reward", pa.float64()),
    ]
)

#: weights: `advantage` is null where the reward is; `weight` is 0 for a row that is not
#: trained on; `merged_into` is the sample that carries this row's weight, if another.
WEIGHTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.int32(), nullable=False),
        pa.field("advantage", pa.float64()),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("prompt_weight", pa.float64(), nullable=False),
        pa.field("merged_into", pa.int32()),
    ]
)

#: scores: a row per graded answer of a model to an evaluation question.
SCORES = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("sample_id", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("extracted", pa.string()),
    ]
)

SCHEMAS = {
    "prompts": PROMPTS,
    "responses": RESPONSES,
    "rewards": REWARDS,
    "weights": WEIGHTS,
    "scores": SCORES,
}


def encode(table: pa.Table) -> bytes:
    """Parquet bytes with a checksum per page; equal tables give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, store_schema=True)
    return buffer.getvalue()


def decode(data: bytes, name: str = "table") -> pa.Table:
    """Read Parquet bytes, verifying every page.

    Raises:
        ArtifactError: the bytes are torn or altered.
    """
    try:
        return pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise ArtifactError(
            f"{name}: got an unreadable Parquet file ({error}), expected a whole one."
        ) from error


def from_rows(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Build a table of a known schema.

    Raises:
        ArtifactError: a row lacks a column, has one too many, or a null where none may be.
    """
    rows = list(rows)
    names = set(schema.names)
    for row in rows:
        if set(row) != names:
            raise ArtifactError(f"row: got the columns {sorted(row)}, expected {sorted(names)}.")
    table = pa.Table.from_pylist(rows, schema=schema)
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise ArtifactError(f"column {field.name}: got a null, expected a value in every row.")
    return table


def in_parts(tables: Iterable[pa.Table], rows_per_part: int = ROWS_PER_PART) -> Iterator[pa.Table]:
    """Regroup a stream of tables into parts of a fixed size, in order.

    So that a table's files do not depend on the shards that it was made in.
    """
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        while table.num_rows:
            head = table.slice(0, rows_per_part - count)
            pending.append(head)
            count += head.num_rows
            table = table.slice(head.num_rows)
            if count == rows_per_part:
                count = 0
                yield _joined(pending)
    if pending:
        yield _joined(pending)


def _joined(pending: list[pa.Table]) -> pa.Table:
    """One table of all, which are let go of."""
    table = pa.concat_tables(pending).combine_chunks()
    pending.clear()
    return table
