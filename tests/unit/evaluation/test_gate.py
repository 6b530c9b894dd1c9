"""The gate finds what was planted, passes what is clean, and does what it is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ContaminationError
from advdistill_core.progress import Event
from advdistill_core.stages import GATE_PROMPTS, GATE_RESPONSES, LOAD, QUESTIONS, run_stage
from advdistill_core.store import ArtifactRef, Store, tables

HELD = "A farmer has 17 hens and sells 5 of them on Monday morning. How many hens does she still have?"
OTHER = (
    "Lena reads 24 pages of a long novel every evening after dinner. How many pages does she read in a week?"
)
FURTHER = "A train with 9 wagons leaves the old station with 36 people in each wagon. How many people leave?"
CLEAN = "Tom paints 3 fences in one afternoon and each takes 2 tins. How many tins of paint did he use?"
ALSO_CLEAN = "What is the perimeter of a square garden whose side measures 12 metres?"


class World:
    """Prompts, a further set and responses in a store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(str(folder / "store"))
        self._write("sets.jsonl", [FURTHER])

    def _write(self, name: str, questions: list[str]) -> Path:
        path = self.folder / name
        rows = [{"id": f"{path.stem}{i}", "question": q, "answer": "12"} for i, q in enumerate(questions)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def config(self, policy: str) -> DistillConfig:
        further = {
            "name": "further",
            "source": "file",
            "path": str(self.folder / "sets.jsonl"),
            "num_questions": 1,
        }
        document: dict[str, Any] = {
            "evaluation": {"contamination": policy, "sets": [further]},
            "storage": {"root": str(self.folder / "store")},
        }
        return DistillConfig.model_validate(document)

    def prompts(self, train: list[str], heldout: list[str]) -> ArtifactRef:
        out = self.store.begin("load", "1", f"{abs(hash(tuple(train))):032x}", "prompts")
        for split, questions in (("train", train), ("heldout", heldout)):
            rows = [
                {
                    "prompt_id": f"{split}{i}",
                    "task": "math",
                    "messages": [{"role": "user", "content": question}],
                    "reference_answer": "12",
                    "choices": [],
                    "split": split,
                    "source": "made up",
                }
                for i, question in enumerate(questions)
            ]
            out.write_tables(iter([tables.from_rows(rows, tables.PROMPTS)]), prefix=split)
        return out.commit({}, {})

    def responses(self, texts: list[str]) -> ArtifactRef:
        out = self.store.begin("generate", "1", f"{abs(hash(tuple(texts))):032x}", "responses")
        rows = [
            {
                "prompt_id": "train0",
                "sample_id": i,
                "text": text,
                "finish_reason": "stop",
                "num_tokens": 5,
                "teacher": "t",
                "seed": 0,
                "request_hash": "0",
            }
            for i, text in enumerate(texts)
        ]
        out.write_tables(iter([tables.from_rows(rows, tables.RESPONSES)]))
        return out.commit({}, {})

    def gate(self, policy: str, **inputs: ArtifactRef) -> tuple[ArtifactRef, dict[str, Any]]:
        config = self.config(policy)
        further = run_stage(QUESTIONS, config, {}, self.store, {"set": "further"})
        stage = GATE_RESPONSES if "responses" in inputs else GATE_PROMPTS
        ref = run_stage(stage, config, {**inputs, "sets/further": further}, self.store)
        record: dict[str, Any] = self.store.open(ref).manifest.metrics["contamination"]
        return ref, record


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


PLANTED = [
    CLEAN,
    HELD.upper().replace(" ", "  "),  # verbatim, apart from case and space
    OTHER.replace("24", "31"),  # number-changed
    "Here is one. " + FURTHER,  # of another set, inside a longer text
    FURTHER.replace("9", "12").replace("36", "40"),
    ALSO_CLEAN,
]


def test_planted_prompts_are_all_found_and_only_they(world: World) -> None:
    prompts = world.prompts(PLANTED, [HELD, OTHER])
    _, record = world.gate("warn", prompts=prompts)
    found = {(m["row_id"], m["set"], m["kind"]) for m in record["matches"]}
    assert found == {
        ("train1", "heldout", "exact"),
        ("train2", "heldout", "template"),
        ("train3", "further", "ngram"),
        ("train4", "further", "template"),
    }
    assert (record["num_checked"], record["num_matching"], record["num_dropped"]) == (6, 4, 0)
    assert record["sets"]["heldout"]["matches"] == {"exact": 1, "template": 1}


@pytest.mark.parametrize("heldout", [[HELD], [HELD, OTHER]])
def test_progress_ends_at_the_training_prompts(world: World, heldout: list[str]) -> None:
    """Held-out prompts lie in the same artifact and are only passed on."""
    told: list[Event] = []
    prompts = world.prompts(PLANTED, heldout)
    run_stage(GATE_PROMPTS, world.config("warn"), {"prompts": prompts}, world.store, progress=told.append)
    of_gate = [event for event in told if event.unit == "training prompts"]
    assert (of_gate[-1].done, of_gate[-1].total) == (6, 6)


@pytest.mark.parametrize(("policy", "kept"), [("warn", 6), ("drop", 2)])
def test_warn_keeps_and_drop_leaves_out(world: World, policy: str, kept: int) -> None:
    ref, record = world.gate(policy, prompts=world.prompts(PLANTED, [HELD, OTHER]))
    passed = world.store.open(ref)
    texts = [m[0]["content"] for m in passed.table("train")["messages"].to_pylist()]
    assert len(texts) == kept
    assert {CLEAN, ALSO_CLEAN} <= set(texts)
    assert passed.table("heldout").num_rows == 2
    assert record["num_dropped"] == 6 - kept


def test_fail_names_the_rows_and_writes_them_down(world: World) -> None:
    with pytest.raises(ContaminationError, match=r"4 training prompts .*train1, train2") as failed:
        world.gate("fail", prompts=world.prompts(PLANTED, [HELD, OTHER]))
    listed = Path(str(failed.value).split("listed in ")[1].split(".jsonl")[0] + ".jsonl")
    assert len(listed.read_text().splitlines()) == 4


@pytest.mark.parametrize("policy", ["warn", "drop", "fail"])
def test_what_is_clean_passes_byte_for_byte(world: World, policy: str) -> None:
    """So nothing after the gate is made again."""
    prompts = world.prompts([CLEAN, ALSO_CLEAN], [HELD, OTHER])
    ref, record = world.gate(policy, prompts=prompts)
    assert (ref.content_hash, record["num_matching"]) == (prompts.content_hash, 0)
    responses = world.responses(["He used 6 tins.", "3 * 2 = 6"])
    ref, record = world.gate(policy, prompts=prompts, responses=responses)
    assert (ref.content_hash, record["num_matching"]) == (responses.content_hash, 0)


def test_a_question_in_a_teachers_response_is_found_and_dropped(world: World) -> None:
    prompts = world.prompts([CLEAN], [HELD, OTHER])
    responses = world.responses(["He used 6 tins.", f"This is like: {OTHER} 168.", FURTHER.lower(), "6"])
    ref, record = world.gate("drop", prompts=prompts, responses=responses)
    found = {(m["row_id"], m["set"], m["kind"]) for m in record["matches"]}
    assert found == {("train0 / 1", "heldout", "ngram"), ("train0 / 2", "further", "exact")}
    assert world.store.open(ref).table()["sample_id"].to_pylist() == [0, 3]


def test_a_clean_set_changes_nothing_downstream(world: World) -> None:
    prompts = world.prompts([CLEAN], [HELD])
    without = run_stage(GATE_PROMPTS, world.config("drop"), {"prompts": prompts}, world.store)
    with_set, _ = world.gate("drop", prompts=prompts)
    assert without.fingerprint != with_set.fingerprint
    assert without.content_hash == with_set.content_hash


def test_clean_real_sets_raise_nothing(world: World, shared_data: Path) -> None:
    """GSM8K's training questions against SVAMP, through the stages."""
    document = world.config("fail").model_dump()
    document["prompts"] |= {
        "source": "file",
        "path": str(shared_data / "train/gsm8k_train.jsonl"),
        "num_train": 1500,
        "num_heldout": 0,
    }
    document["evaluation"]["sets"][0] |= {"path": str(shared_data / "eval/svamp.jsonl"), "num_questions": 250}
    config = DistillConfig.model_validate(document)
    prompts = run_stage(LOAD, config, {}, world.store)
    questions = run_stage(QUESTIONS, config, {}, world.store, {"set": "further"})
    ref = run_stage(GATE_PROMPTS, config, {"prompts": prompts, "sets/further": questions}, world.store)
    record = world.store.open(ref).manifest.metrics["contamination"]
    assert (record["num_checked"], record["num_matching"]) == (1500, 0)
