"""The stage on a tiny random model: the same scores however often it was interrupted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.errors import ErrorRateError, InputError, StageError
from advdistill_core.evaluation import stage
from advdistill_core.progress import Event
from advdistill_core.rewards import Graded, Grader
from advdistill_core.stages import EVALUATE, plan_stage, run_stage
from advdistill_core.store import ArtifactRef, Store, tables

BEFORE = {"model": "student_before"}


def config(**evaluation: Any) -> DistillConfig:
    sampling = {"max_new_tokens": 4, "shard_size": 2, **evaluation}
    return DistillConfig.model_validate(
        {
            "teacher": {"model": "tiny-random-llama"},
            "student": {"model": "tiny-random-llama"},
            "evaluation": sampling,
        }
    )


def prompts(store: Store, references: tuple[str, ...] = ("1", "2", "3", "4", "5")) -> ArtifactRef:
    rows = [
        {
            "prompt_id": f"q{i}",
            "task": "math",
            "messages": [{"role": "user", "content": f"What is {i}?"}],
            "reference_answer": reference,
            "choices": [],
            "split": "heldout",
            "source": "test",
        }
        for i, reference in enumerate(references)
    ]
    out = store.begin("load", "1", "f" * 32, "prompts")
    out.write_tables(
        [tables.from_rows([{**rows[0], "prompt_id": "t", "split": "train"}], tables.PROMPTS)], "train"
    )
    out.write_tables([tables.from_rows(rows, tables.PROMPTS)], "heldout")
    return out.commit({}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(store: Store, ref: ArtifactRef) -> list[dict[str, Any]]:
    return list(store.open(ref).table().to_pylist())


def test_every_question_is_answered_once_and_in_order(store: Store) -> None:
    sampling, told = {"num_samples": 2, "temperature": 1.0}, list[Event]()
    ref = run_stage(EVALUATE, config(**sampling), {"prompts": prompts(store)}, store, BEFORE, told.append)
    assert {event.message for event in told} == {"student before"}
    rows = rows_of(store, ref)
    assert [(r["question_id"], r["sample_id"]) for r in rows] == [
        (f"q{i}", s) for i in range(5) for s in range(2)
    ]
    assert {(r["set"], r["model"]) for r in rows} == {("heldout", "student_before")}
    manifest = store.open(ref).manifest
    assert manifest.tokens == {"generated": sum(r["num_tokens"] for r in rows)}
    assert sum(manifest.metrics["verdicts"].values()) == 10
    assert manifest.metrics["num_questions"] == 5
    assert set(manifest.metrics["pass_at"]) == set(manifest.metrics["maj_at"]) == {"1", "2"}
    assert manifest.metrics["pass_at"]["1"] == pytest.approx(manifest.metrics["accuracy"])


def test_interrupted_and_cut_differently_gives_the_same_scores(tmp_path: Path) -> None:
    whole, cut = Store(str(tmp_path / "whole")), Store(str(tmp_path / "cut"))
    sampling = {"temperature": 1.0, "num_samples": 2}
    expected = run_stage(EVALUATE, config(**sampling), {"prompts": prompts(whole)}, whole, BEFORE)

    def stop(event: Event) -> None:
        if event.done == 4:
            raise KeyboardInterrupt

    inputs = {"prompts": prompts(cut)}
    with pytest.raises(KeyboardInterrupt):
        run_stage(EVALUATE, config(**sampling), inputs, cut, BEFORE, stop)
    asked: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        generate = stage._Evaluation._generate
        patch.setattr(
            stage._Evaluation, "_generate", lambda self, q: asked.append(len(q)) or generate(self, q)
        )
        ref = run_stage(EVALUATE, config(**sampling), inputs, cut, BEFORE)
    assert asked == [2, 1]
    assert ref.outcome == "resumed"
    assert ref.content_hash == expected.content_hash

    other = Store(str(tmp_path / "other"))
    ref = run_stage(EVALUATE, config(**sampling, shard_size=3), {"prompts": prompts(other)}, other, BEFORE)
    assert (ref.fingerprint, ref.content_hash) == (expected.fingerprint, expected.content_hash)


def test_a_failed_check_is_no_wrong_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts fail the stage above the limit; the next attempt grades only those again."""
    graded: list[int] = []

    def grade(verdict: str) -> Any:
        def fake(self: Grader, items: list[Any]) -> list[Graded]:
            graded.append(len(items))
            return [Graded(verdict if item.reference == "2" else "correct", "x") for item in items]  # type: ignore[arg-type]

        return fake

    inputs = {"prompts": prompts(store)}
    monkeypatch.setattr(Grader, "grade", grade("timeout"))
    with pytest.raises(ErrorRateError, match=r"got 20.00%"):
        run_stage(EVALUATE, config(), inputs, store, BEFORE)
    monkeypatch.setattr(Grader, "grade", grade("wrong"))
    graded.clear()
    ref = run_stage(EVALUATE, config(), inputs, store, BEFORE)
    assert graded == [1]
    assert store.open(ref).manifest.metrics["accuracy"] == 0.8


def test_tolerated_failures_are_left_out_of_the_accuracy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(self: Grader, items: list[Any]) -> list[Graded]:
        verdicts = {"1": "timeout", "2": "wrong"}
        return [Graded(verdicts.get(item.reference, "correct"), None) for item in items]  # type: ignore[arg-type]

    monkeypatch.setattr(Grader, "grade", fake)
    tolerant = config().model_dump() | {"rewards": {"max_error_frac": 0.5}}
    ref = run_stage(
        EVALUATE, DistillConfig.model_validate(tolerant), {"prompts": prompts(store)}, store, BEFORE
    )
    metrics = store.open(ref).manifest.metrics
    assert (metrics["accuracy"], metrics["num_questions"], metrics["num_left_out"]) == (0.75, 4, 1)
    assert metrics["verdicts"] == {"correct": 3, "timeout": 1, "wrong": 1}


def test_a_question_without_a_usable_reference_is_named_and_left_out(store: Store) -> None:
    inputs = {"prompts": prompts(store, ("1", "2", "", "4"))}
    metrics = store.open(run_stage(EVALUATE, config(), inputs, store, BEFORE)).manifest.metrics
    assert metrics["ungradable_questions"] == ["q2"]
    assert metrics["num_questions"] == 3
    assert metrics["error_frac"] == 0


def test_no_heldout_questions_give_an_empty_table(store: Store) -> None:
    out = store.begin("load", "1", "e" * 32, "prompts")
    out.write_tables([tables.PROMPTS.empty_table()], "heldout")
    ref = run_stage(EVALUATE, config(), {"prompts": out.commit({}, {})}, store, BEFORE)
    assert ref.rows == 0
    assert store.open(ref).manifest.metrics["accuracy"] is None


def test_student_after_needs_a_student(store: Store) -> None:
    with pytest.raises(StageError, match="no student"):
        run_stage(EVALUATE, config(), {"prompts": prompts(store)}, store, {"model": "student_after"})


def test_student_after_is_read_from_its_artifact(store: Store) -> None:
    questions = prompts(store)
    out = store.begin("train", "1", "a" * 32, None)
    folder = out.work_folder("model")
    models.load_model("tiny-random-llama").save_pretrained(folder)
    models.load_tokenizer("tiny-random-llama").save_pretrained(folder)
    for path in folder.iterdir():
        out.put_file(path.name, path)
    student = out.commit({}, {})
    after = run_stage(
        EVALUATE, config(), {"prompts": questions, "student": student}, store, {"model": "student_after"}
    )
    before = run_stage(EVALUATE, config(), {"prompts": questions}, store, BEFORE)
    assert [r["text"] for r in rows_of(store, after)] == [r["text"] for r in rows_of(store, before)]


def test_fingerprint_follows_verdicts_and_weights_but_not_the_rubric(store: Store) -> None:
    inputs = {"prompts": prompts(store)}

    def planned(changes: dict[str, Any], params: dict[str, str] = BEFORE) -> str:
        document = config().model_dump()
        for section, values in changes.items():
            document[section] |= values
        return plan_stage(EVALUATE, DistillConfig.model_validate(document), inputs, store, params).fingerprint

    base = planned({})
    assert planned({"rewards": {"format": 0.05}, "evaluation": {"batch_size": 3}}) == base
    assert planned({"student": {"learning_rate": 1e-4}}) == base
    assert planned({"rewards": {"policy": {"require_boxed": True}}}) != base
    assert planned({"rewards": {"timeout_s": 9.0}}) != base  # a verdict may be `timeout`
    assert planned({"student": {"keep_layers": [0]}}) != base
    assert planned({"evaluation": {"seed": 1}}) != base
    assert planned({}, {"model": "teacher"}) != base


def test_the_student_before_is_what_training_starts_from(store: Store) -> None:
    """With layers left out the whole model would be compared with a cut one."""
    inputs = {"prompts": prompts(store)}
    document = config(max_new_tokens=16).model_dump()
    whole = run_stage(EVALUATE, DistillConfig.model_validate(document), inputs, store, BEFORE)
    document["student"]["keep_layers"] = [1]
    cut = run_stage(EVALUATE, DistillConfig.model_validate(document), inputs, store, BEFORE)
    texts = [[r["text"] for r in rows_of(store, ref)] for ref in (whole, cut)]
    assert texts[0] != texts[1]

    from advdistill_core.models.layers import keep_layers

    model = models.load_model("tiny-random-llama")
    keep_layers(model, [1])
    tokenizer = models.load_tokenizer("tiny-random-llama")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 0?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == texts[1][0]


def test_a_teacher_behind_an_endpoint_is_refused_before_anything_loads(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "identity", lambda name: pytest.fail("looked for a model"))
    document = config().model_dump()
    document["teacher"] = {"backend": "openai", "model": "served", "base_url": "http://localhost:1/v1"}
    with pytest.raises(InputError, match=r"teacher\.backend"):
        run_stage(
            EVALUATE,
            DistillConfig.model_validate(document),
            {"prompts": prompts(store)},
            store,
            {"model": "teacher"},
        )


def test_refused_requests_leave_the_error_rate_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = stage._Evaluation._generate

    def refuse_some(self: Any, questions: Any) -> list[dict[str, Any]]:
        rows = generate(self, questions)
        for row in rows:
            if row["question_id"] in ("q0", "q3"):
                row["finish_reason"] = "error"
        return rows

    monkeypatch.setattr(stage._Evaluation, "_generate", refuse_some)
    ref = run_stage(EVALUATE, config(), {"prompts": prompts(store)}, store, BEFORE)
    metrics = store.open(ref).manifest.metrics
    assert (metrics["error_frac"], metrics["failed_responses"]) == (0, 2)
    assert metrics["verdicts"]["error"] == 2
    assert metrics["num_left_out"] == 2
