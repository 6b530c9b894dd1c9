"""The stage `train` from tables to a model folder."""

import io

import pyarrow.parquet as pq
import pytest
import torch

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError, StageError
from advdistill_core.models.tiny import NAME as TINY
from advdistill_core.stages import TRAIN, plan_stage, run_stage
from advdistill_core.store import Store, tables
from advdistill_core.training.data import encode_completion, read_groups, read_weights
from advdistill_core.training.more_data import read_paired

QUESTIONS = {"a": "1+1", "b": "2+2", "c": "3+4", "d": "5+1", "e": "0+9"}


def write(store, name, rows, prefix="part", metrics=None):
    out = store.begin(name, "1", "f", name)
    out.write_tables([tables.from_rows(rows, tables.SCHEMAS[name])], prefix)
    out.note(metrics=metrics or {})
    return out.commit({}, {})


def inputs_of(store, weights=None, text="The answer is {}.", finish="stop"):
    """Five prompts with three responses each; the third is cut short."""
    prompts = [
        {
            "prompt_id": name, "task": "math", "messages": [{"role": "user", "content": question}],
            "reference_answer": "", "choices": [], "split": "train", "source": "test",
        }
        for name, question in QUESTIONS.items()
    ]  # fmt: skip
    responses, weight_rows = [], []
    for name in QUESTIONS:
        for i in range(3):
            responses.append(
                {
                    "prompt_id": name, "sample_id": i, "text": text.format(i) if i else text.format(0) + "!",
                    "finish_reason": "length" if i == 2 else finish, "num_tokens": 9,
                    "teacher": "t", "seed": 0, "request_hash": "h",
                }
            )  # fmt: skip
            weight = (weights or {}).get((name, i), [0.7, 0.3, 0.0][i] if weights is None else 0.0)
            weight_rows.append(
                {
                    "prompt_id": name, "sample_id": i, "advantage": 0.0, "weight": weight,
                    "prompt_weight": 1.0, "merged_into": None,
                }
            )  # fmt: skip
    return {
        "prompts": write(store, "prompts", prompts, "train"),
        "responses": write(store, "responses", responses),
        "weights": write(store, "weights", weight_rows, metrics={"all_wrong": 5, "mixed": 0}),
    }


def config(tmp_path, **student):
    student = {"model": TINY, "groups_per_step": 2, "epochs": 2, "learning_rate": 1e-2, **student}
    return DistillConfig(student=student, storage={"root": str(tmp_path)})


def test_the_artifact_is_a_model_that_loads(tmp_path):
    store, events = Store(str(tmp_path)), []
    ref = run_stage(TRAIN, config(tmp_path), inputs_of(store), store, progress=events.append)
    artifact = store.open(ref)
    folder = str(artifact.local_path())
    trained, before = models.load_model(folder), models.load_model(TINY)
    tokenizer = models.load_tokenizer(folder)
    assert tokenizer.chat_template == models.load_tokenizer(TINY).chat_template
    ids = torch.tensor([tokenizer("hello")["input_ids"]])
    assert (trained(ids).logits - before(ids).logits).abs().max() > 1e-3
    log = pq.read_table(io.BytesIO(artifact.file("train_log.parquet"))).to_pylist()
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]  # 5 groups, 2 a step, 2 epochs
    assert log[-1]["loss"] < log[0]["loss"]
    # responses 0 and 1, each with its end token; 5 groups, 2 epochs
    assert artifact.manifest.tokens == {"completion": 2 * 5 * (18 + 17)}
    assert sum(row["completion_tokens"] for row in log) == 2 * 5 * (18 + 17)
    steps = [e for e in events if e.unit == "steps" and e.total]
    assert [(e.done, e.total) for e in steps] == [(i, 6) for i in range(1, 7)]
    assert steps[-1].tokens == 2 * 5 * (18 + 17)
    assert steps[-1].figures["loss"] == pytest.approx(log[-1]["loss"], rel=1e-6)
    assert artifact.manifest.metrics["prefix_shared"]
    assert not (artifact.local_path() / "work").exists()
    assert str(tmp_path) not in artifact.file("config.json").decode()


def test_running_twice_gives_the_same_bytes(tmp_path):
    hashes = set()
    for name in ("a", "b"):
        store = Store(str(tmp_path / name))
        ref = run_stage(TRAIN, config(tmp_path / name), inputs_of(store), store)
        hashes.add(ref.content_hash)
    assert len(hashes) == 1


def test_the_identity_is_the_weights_not_the_name(tmp_path):
    store = Store(str(tmp_path / "store"))
    refs = inputs_of(store)
    by_name = plan_stage(TRAIN, config(tmp_path), refs, store)
    assert by_name.config["student"]["model"] == models.identity(TINY)
    assert "batch_tokens" not in by_name.config["student"]


def test_no_weight_at_all_leaves_the_student_and_says_why(tmp_path):
    import torch

    store = Store(str(tmp_path))
    refs = inputs_of(store, weights={("a", 0): 0.0})
    artifact = store.open(run_stage(TRAIN, config(tmp_path), refs, store))
    assert "every group was dropped (5 all wrong, 0 mixed)" in artifact.manifest.metrics["nothing_to_train"]
    assert artifact.manifest.metrics["num_steps"] == 0
    assert artifact.table("train_log").num_rows == 0
    before = models.load_model(TINY).state_dict()
    after = models.load_model(str(artifact.local_path())).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_negative_weights_are_refused(tmp_path):
    store = Store(str(tmp_path))
    refs = inputs_of(store, weights={("a", 0): 1.0, ("b", 1): -0.5})
    with pytest.raises(InputError, match="prompt b sample 1"):
        run_stage(TRAIN, config(tmp_path), refs, store)


def with_rewards(store, refs):
    """Response 0 is right, 1 wrong, 2 unparsed; of prompt e all are right, of d none."""
    verdicts = {"d": ["wrong"] * 3, "e": ["correct"] * 3}
    rewards = [
        {"prompt_id": name, "sample_id": i, "verdict": verdict, "extracted": None, "truncated": False}
        | dict.fromkeys(tables.REWARD_PARTS, 0.0)
        | {"reward": 0.0}
        for name in QUESTIONS
        for i, verdict in enumerate(verdicts.get(name, ["correct", "wrong", "unparsed"]))
    ]
    rows = store.open(refs["weights"]).table().to_pylist()
    for row in rows:
        row["advantage"] = [1.0, -0.25, -0.75][row["sample_id"]]
    return {
        **refs,
        "rewards": write(store, "rewards", rewards),
        "weights": write(store, "weights", rows),
    }


def test_pairs_of_right_and_wrong_are_read_from_the_tables(tmp_path):
    store = Store(str(tmp_path))
    refs = with_rewards(store, inputs_of(store))
    tokenizer, student = models.load_tokenizer(TINY), config(tmp_path).student
    opened = {name: store.open(ref) for name, ref in refs.items()}
    groups = read_paired(opened, tokenizer, student, frozenset("c"))
    assert [g.prompt_id for g in groups] == ["a", "b"]  # c is kept back, d and e have one side only
    right, wrong, unparsed = groups[0].rows
    assert (right.weight, right.negative, right.num_masked) == (0.7, 0.0, 0)
    # "The answer is 1." against "The answer is 0.!": the letters before the figure are shared
    assert (wrong.weight, wrong.negative, wrong.num_masked) == (0.0, 0.25, len("The answer is "))
    assert (unparsed.negative, unparsed.completion[-1] != tokenizer.eos_token_id) == (0.75, True)
    short = student.model_copy(update={"max_seq_tokens": 22 + 17})
    assert all(
        len(r.completion) <= 17 for g in read_paired(opened, tokenizer, short, frozenset()) for r in g.rows
    )
    del opened["rewards"]
    with pytest.raises(StageError, match="got no rewards"):
        read_paired(opened, tokenizer, student, frozenset())


def test_a_second_stage_on_wrong_responses(tmp_path):
    store = Store(str(tmp_path))
    refs = with_rewards(store, inputs_of(store))
    chosen = config(tmp_path, negatives={"kind": "unlikelihood", "learning_rate": 1e-3})
    artifact = store.open(run_stage(TRAIN, chosen, refs, store))
    told, log = artifact.manifest.metrics["negatives"], artifact.table("train_log").to_pylist()
    assert (told["num_groups"], told["num_steps"], told["guard_stopped_at"]) == (3, 2, None)
    assert [row["stage"] for row in log] == [1] * 6 + [2] * 2
    assert log[-1]["chosen_log_prob"] == told["chosen_log_prob_end"]
    off = store.open(
        run_stage(TRAIN, config(tmp_path), {k: v for k, v in refs.items() if k != "rewards"}, store)
    )
    assert artifact.manifest.content_hash("model") != off.manifest.content_hash("model")
    models.load_model(str(artifact.local_path()))


def test_a_second_stage_without_a_pair_says_so(tmp_path):
    store, events = Store(str(tmp_path)), []
    refs = with_rewards(store, inputs_of(store, weights={("e", 0): 1.0}))
    chosen = config(tmp_path, negatives={"kind": "margin"})
    artifact = store.open(run_stage(TRAIN, chosen, refs, store, progress=events.append))
    assert artifact.manifest.metrics["negatives"] == {"kind": "margin", "num_groups": 0, "num_steps": 0}
    assert any("no wrong response beside a right one" in event.message for event in events)


def test_the_weight_of_a_row_is_that_of_the_response_times_that_of_the_prompt(tmp_path):
    store = Store(str(tmp_path))
    refs = inputs_of(store, weights={("a", 0): 0.25, ("b", 1): 0.5, ("c", 0): 1.0})
    rows = store.open(refs["weights"]).table().to_pylist()
    for row in rows:
        row["prompt_weight"] = {"a": 0.5, "c": 0.0}.get(row["prompt_id"], 1.0)
    weights = store.open(write(store, "weights", rows))
    assert read_weights(weights) == {("a", 0): 0.125, ("b", 1): 0.5}


def test_negative_weights_are_left_to_the_second_stage(tmp_path):
    store = Store(str(tmp_path))
    weights = store.open(inputs_of(store, weights={("a", 0): 1.0, ("b", 1): -0.5})["weights"])
    assert read_weights(weights, negatives=True) == {("a", 0): 1.0}


def test_too_long_rows_are_skipped_and_counted(tmp_path):
    store = Store(str(tmp_path))
    refs = inputs_of(store)
    # 22 prompt tokens; response 0 has 18 tokens, response 1 has 17
    ref = run_stage(TRAIN, config(tmp_path, max_seq_tokens=39), refs, store)
    metrics = store.open(ref).manifest.metrics
    assert (metrics["too_long"], metrics["num_responses"]) == (5, 5)
    with pytest.raises(StageError, match=r"10 are longer than student\.max_seq_tokens=8"):
        run_stage(TRAIN, config(tmp_path, max_seq_tokens=8), refs, store)


def test_responses_without_a_token_are_skipped_and_an_all_masked_batch_is_refused(tmp_path):
    """Empty and cut short: not even an end token is left to learn."""
    store = Store(str(tmp_path))
    refs = inputs_of(store, text="", finish="length")  # response 0 is "!", the others are empty
    metrics = store.open(run_stage(TRAIN, config(tmp_path), refs, store)).manifest.metrics
    assert (metrics["empty"], metrics["num_responses"]) == (5, 5)
    only_empty = inputs_of(store, weights={(q, 1): 1.0 for q in QUESTIONS}, text="", finish="length")
    with pytest.raises(StageError, match="5 are empty"):
        run_stage(TRAIN, config(tmp_path), only_empty, store)


def test_rows_beyond_the_students_context_are_skipped_and_counted(tmp_path):
    """A model with learned positions has none for them."""
    folder = tmp_path / "student"
    model = models.load_model(TINY)
    model.config.max_position_embeddings = 39
    model.save_pretrained(folder)
    models.load_tokenizer(TINY).save_pretrained(folder)
    store = Store(str(tmp_path / "store"))
    ref = run_stage(TRAIN, config(tmp_path / "store", model=str(folder)), inputs_of(store), store)
    metrics = store.open(ref).manifest.metrics
    assert (metrics["too_long"], metrics["num_responses"]) == (5, 5)


def test_an_empty_weights_table_leaves_the_student_and_says_why(tmp_path):
    store = Store(str(tmp_path))
    refs = {**inputs_of(store), "weights": write(store, "weights", [], metrics={"all_wrong": 0})}
    artifact = store.open(run_stage(TRAIN, config(tmp_path), refs, store))
    assert "nothing to train on" in artifact.manifest.metrics["nothing_to_train"]


def test_the_end_token_is_learned_only_where_the_response_ended():
    tokenizer = models.load_tokenizer(TINY)
    ended, cut = encode_completion(tokenizer, "ab", True), encode_completion(tokenizer, "ab", False)
    assert ended == (*cut, tokenizer.eos_token_id)
    assert tokenizer.decode(cut) == "ab"
    assert encode_completion(tokenizer, "", False) == ()


def test_groups_hold_what_has_weight(tmp_path):
    store = Store(str(tmp_path))
    refs = inputs_of(store, weights={("a", 0): 0.25, ("a", 2): 0.5, ("c", 1): 1.0}, finish="stop")
    opened = {name: store.open(ref) for name, ref in refs.items()}
    tokenizer = models.load_tokenizer(TINY)
    data = read_groups(
        opened["prompts"],
        opened["responses"],
        read_weights(opened["weights"]),
        tokenizer,
        config(tmp_path).student,
    )
    assert [(g.prompt_id, [r.weight for r in g.rows]) for g in data.groups] == [
        ("a", [0.25, 0.5]),
        ("c", [1.0]),
    ]
    assert (
        tokenizer.decode(data.groups[0].prompt) == "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
    )
    assert data.groups[0].rows[0].completion[-1] == tokenizer.eos_token_id
    assert data.groups[0].rows[1].completion[-1] != tokenizer.eos_token_id  # cut short
