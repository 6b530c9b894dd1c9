"""Several teachers in one run, what they are shown, and reference solutions beside them."""

from pathlib import Path
from typing import Any

import pytest
from counting_endpoint import CountingEndpoint

from advdistill_core.config import DistillConfig
from advdistill_core.models import tiny
from advdistill_core.stages import GENERATE, LOAD, VERIFY, WEIGH, run_stage
from advdistill_core.store import Artifact, ArtifactRef, Store, tables
from advdistill_core.teachers.members import REFERENCE, SAMPLE_STEP

NUM, K = 5, 3


def config(root: Path, **teacher: Any) -> DistillConfig:
    settings = {"model": "tiny-random-llama", "device": "cpu", "k": K, "max_new_tokens": 6, "shard_size": 2}
    return DistillConfig.model_validate(
        {
            "prompts": {"num_train": NUM, "num_heldout": 1, "system": "Think."},
            "teacher": {**settings, **teacher},
            "storage": {"root": str(root)},
        }
    )


def load(root: Path) -> ArtifactRef:
    return run_stage(LOAD, config(root), {}, Store(str(root)))


def generate(root: Path, **teacher: Any) -> Artifact:
    store = Store(str(root))
    return store.open(run_stage(GENERATE, config(root, **teacher), {"prompts": load(root)}, store))


@pytest.fixture
def other(tmp_path: Path) -> str:
    """A second model."""
    tiny.build(tmp_path / "other", seed=1)
    return str(tmp_path / "other")


def test_two_models_and_an_endpoint_in_one_table(tmp_path: Path, other: str) -> None:
    with CountingEndpoint() as server:
        mixture = [
            {"model": other, "k": 2, "temperature": 1.0},
            {"backend": "openai", "model": "big", "base_url": server.url, "k": 1},
        ]
        artifact = generate(tmp_path / "store", mixture=mixture, reference_solutions=True)
        assert server.num_asked == NUM
    table = artifact.table()
    assert table.schema.equals(tables.RESPONSES)
    rows = table.to_pylist()
    order = list(dict.fromkeys(row["prompt_id"] for row in rows))
    assert len(order) == NUM
    samples = [0, 1, 2, SAMPLE_STEP, SAMPLE_STEP + 1, 2 * SAMPLE_STEP, 3 * SAMPLE_STEP]
    assert [(r["prompt_id"], r["sample_id"]) for r in rows] == [(p, s) for p in order for s in samples]
    who = ["tiny-random-llama"] * K + [other] * 2 + ["big", REFERENCE]
    assert [row["teacher"] for row in rows] == who * NUM
    answers = {r["prompt_id"]: r["reference_answer"] for t in questions(tmp_path) for r in t.to_pylist()}
    assert all(r["text"] == answers[r["prompt_id"]] for r in rows if r["teacher"] == REFERENCE)
    alone = generate(tmp_path / "store").table().to_pylist()
    assert [row for row in rows if row["sample_id"] < K] == alone
    found = artifact.manifest.metrics["teachers"]
    assert [counts["responses"] for counts in found.values()] == [NUM * K, NUM * 2, NUM]
    assert artifact.manifest.metrics["new_responses"] == NUM * (K + 3)


def questions(tmp_path: Path) -> list[Any]:
    store = Store(str(tmp_path / "store"))
    return list(store.open(load(tmp_path / "store")).tables("train"))


def test_another_k_of_one_teacher_leaves_the_samples_of_the_others(tmp_path: Path, other: str) -> None:
    mixture = [{"model": other, "k": 2}]
    before = generate(tmp_path / "store", mixture=mixture).table().to_pylist()
    after = generate(tmp_path / "store", mixture=mixture, k=K + 2)
    assert after.manifest.metrics["reused_responses"] == NUM * (K + 2)
    rows = after.table().to_pylist()
    assert [row for row in rows if row in before] == before
    assert after.manifest.metrics["new_responses"] == NUM * 2


def test_reference_solutions_are_graded_like_the_others(tmp_path: Path) -> None:
    store, wanted = Store(str(tmp_path)), config(tmp_path, reference_solutions=True)
    loaded = load(tmp_path)
    responses = run_stage(GENERATE, wanted, {"prompts": loaded}, store)
    rewards = run_stage(VERIFY, wanted, {"prompts": loaded, "responses": responses}, store)
    weights = run_stage(WEIGH, wanted, {"responses": responses, "rewards": rewards}, store)
    graded = [r for r in store.open(rewards).table().to_pylist() if r["sample_id"] == SAMPLE_STEP]
    assert [row["verdict"] for row in graded] == ["correct"] * NUM
    assert store.open(weights).manifest.rows == NUM * (K + 1)


def test_system_text_and_examples_are_for_the_teacher_alone(tmp_path: Path) -> None:
    with CountingEndpoint() as server:
        settings = {"backend": "openai", "model": "m", "base_url": server.url, "device": "auto"}
        shown = [{"question": "1 + 1 =", "answer": "2"}, {"question": "2 + 2 =", "answer": "4"}]
        artifact = generate(tmp_path, **settings, system="Be brief.", examples=shown)
        for body in server.bodies:
            *before, question = body["messages"]
            assert before == [
                {"role": "system", "content": "Be brief.\n\nThink."},
                {"role": "user", "content": "1 + 1 ="},
                {"role": "assistant", "content": "2"},
                {"role": "user", "content": "2 + 2 ="},
                {"role": "assistant", "content": "4"},
            ]
            assert question["role"] == "user"
        hashes = {row["request_hash"] for row in artifact.table().to_pylist()}
        plain = generate(tmp_path, **settings)
        assert not hashes & {row["request_hash"] for row in plain.table().to_pylist()}
    asked = [row["messages"] for table in Store(str(tmp_path)).open(load(tmp_path)).tables("train")
             for row in table.to_pylist()]  # fmt: skip
    assert {
        message["content"] for messages in asked for message in messages if message["role"] == "system"
    } == {"Think."}
