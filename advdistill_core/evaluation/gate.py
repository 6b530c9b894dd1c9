"""The stages `gate_prompts` and `gate_responses`: what repeats an evaluation question stays out.

They pass a table on, with what repeats a question of any evaluation set removed, kept or
refused, and record the counts and the matching rows in the manifest. Not in the table's
parts: whoever adds a clean evaluation set need not train again.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ContaminationError
from advdistill_core.evaluation.contamination import QuestionIndex
from advdistill_core.evaluation.stage import HELDOUT
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter

_MAX_RECORDED = 5000
_MAX_NAMED = 5


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Only what becomes of a match is a setting."""
    return {"contamination": config.evaluation.contamination}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Compare every training text with every evaluation question.

    Args:
        inputs: `prompts`; `sets/NAME` for each further set; `responses`, if those are to pass.

    Raises:
        ContaminationError: something matches and `evaluation.contamination` is `fail`. The
            rows are in the file that it names.
    """
    gate = Gate(inputs, config.evaluation.contamination == "drop")
    if "responses" in inputs:
        what, total = "responses", inputs["responses"].manifest.rows
        out.write_tables(_told(gate.responses(inputs["responses"]), what, total, progress))
    else:
        what, parts = "training prompts", inputs["prompts"].manifest.parts
        total = sum(part.rows or 0 for part in parts if part.name.startswith("train"))
        out.write_tables(_told(gate.prompts(inputs["prompts"]), what, total, progress), prefix="train")
        out.write_tables(inputs["prompts"].tables("heldout"), prefix="heldout")
    if gate.matches and config.evaluation.contamination == "fail":
        record = out.work_folder("contamination") / "matches.jsonl"
        record.write_text("".join(json.dumps(match) + "\n" for match in gate.matches), "utf-8")
        rows = sorted({match["row_id"] for match in gate.matches})
        raise ContaminationError(
            f"contamination: got {len(rows)} {what} that repeat evaluation questions "
            f"({', '.join(rows[:_MAX_NAMED])}{', ...' if len(rows) > _MAX_NAMED else ''}), expected none. "
            f"They are listed in {record}. Remove them, or set evaluation.contamination to drop or warn."
        )
    out.note(metrics={"contamination": gate.record(config.evaluation.contamination)})


def _told(
    parts: Iterator[tuple[int, pa.Table]], what: str, total: int, progress: Progress
) -> Iterator[pa.Table]:
    for done, part in parts:
        progress(Event(stage="gate", done=done, total=total, unit=what))
        yield part


class Gate:
    """Looks for the questions of every evaluation set.

    Args:
        inputs: as of the stage.
        drop: remove the rows that match.
    """

    def __init__(self, inputs: Mapping[str, Artifact], drop: bool) -> None:
        self.drop = drop
        self.matches: list[dict[str, Any]] = []
        self.num_checked = self.num_rows = 0
        background = [text for _, text in _texts(inputs["prompts"], "train")]
        asked = {HELDOUT: inputs["prompts"]}
        asked |= {name.split("/", 1)[1]: part for name, part in inputs.items() if name.startswith("sets/")}
        self.sets = {name: list(_texts(artifact, "heldout")) for name, artifact in asked.items()}
        self.indices = {name: QuestionIndex(texts, background) for name, texts in self.sets.items() if texts}

    def prompts(self, artifact: Artifact) -> Iterator[tuple[int, pa.Table]]:
        """The training prompts that pass, and how many were looked at."""
        for part in artifact.tables("train"):
            ids, texts = part["prompt_id"].to_pylist(), map(_text, part["messages"].to_pylist())
            yield self._passing(part, ids, texts)

    def responses(self, artifact: Artifact) -> Iterator[tuple[int, pa.Table]]:
        """The responses that pass, and how many were looked at."""
        for part in artifact.tables():
            keys = zip(part["prompt_id"].to_pylist(), part["sample_id"].to_pylist(), strict=True)
            names = [f"{prompt_id} / {sample_id}" for prompt_id, sample_id in keys]
            yield self._passing(part, names, part["text"].to_pylist())

    def _passing(self, part: pa.Table, names: list[str], texts: Iterable[str]) -> tuple[int, pa.Table]:
        kept = []
        for row_id, text in zip(names, texts, strict=True):
            found = [
                {"set": name, **asdict(match)}
                for name, index in self.indices.items()
                for match in index.find(row_id, text)
            ]
            self.matches += found
            self.num_rows += bool(found)
            kept.append(not (found and self.drop))
        self.num_checked += part.num_rows
        return self.num_checked, part.filter(pa.array(kept, pa.bool_()))

    def record(self, policy: str) -> dict[str, Any]:
        """Counts, and the matching rows, for the manifest."""
        return {
            "policy": policy,
            "num_checked": self.num_checked,
            "num_matching": self.num_rows,
            "num_dropped": self.num_rows if self.drop else 0,
            "num_questions": len({(m["set"], m["question_id"]) for m in self.matches}),
            "sets": {
                name: {
                    "num_questions": len(texts),
                    "matches": dict(Counter(m["kind"] for m in self.matches if m["set"] == name)),
                    "common_templates": self.indices[name].num_common_templates if texts else 0,
                    "questions_of_common_templates": (
                        self.indices[name].num_questions_of_common_templates if texts else 0
                    ),
                }
                for name, texts in self.sets.items()
            },
            "matches": self.matches[:_MAX_RECORDED],
        }


def _texts(artifact: Artifact, split: str) -> Iterator[tuple[str, str]]:
    for part in artifact.tables(split):
        yield from zip(part["prompt_id"].to_pylist(), map(_text, part["messages"].to_pylist()), strict=True)


def _text(messages: list[dict[str, str]]) -> str:
    """What is asked; the system message is the same for all."""
    return "\n\n".join(m["content"] for m in messages if m["role"] != "system")
