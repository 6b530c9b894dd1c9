"""The verify stage: rewards, resumption, error rate, ungradable prompts."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from advdistill_core.config import DistillConfig, RewardsConfig
from advdistill_core.errors import ArtifactError, ErrorRateError, StageError
from advdistill_core.progress import Event
from advdistill_core.rewards import stage
from advdistill_core.stages import VERIFY, run_stage
from advdistill_core.store import ArtifactRef, Store, tables

TOWER = "\\boxed{9^{9^{9^{9}}}}"


def _prompts(store: Store, golds: dict[str, str], task: str = "math") -> ArtifactRef:
    rows = [
        {
            "prompt_id": key,
            "task": task,
            "messages": [{"role": "user", "content": "?"}],
            "reference_answer": gold,
            "choices": [],
            "split": "train",
            "source": "test",
        }
        for key, gold in golds.items()
    ]
    out = store.begin("load", "1", "a" * 32, "prompts")
    out.write_tables([tables.from_rows(rows, tables.PROMPTS)], "train")
    return out.commit({}, {})


def _responses(store: Store, texts: list[tuple[str, str, str]]) -> ArtifactRef:
    counts: dict[str, int] = {}
    rows = []
    for key, text, finish in texts:
        counts[key] = counts.get(key, -1) + 1
        rows.append(
            {
                "prompt_id": key,
                "sample_id": counts[key],
                "text": text,
                "finish_reason": finish,
                "num_tokens": len(text.split()),
                "teacher": "t",
                "seed": 0,
                "request_hash": "",
            }
        )
    out = store.begin("generate", "1", "b" * 32, "responses")
    out.write_tables([tables.from_rows(rows, tables.RESPONSES)])
    return out.commit({}, {})


def _config(**rewards: Any) -> DistillConfig:
    return DistillConfig(rewards=RewardsConfig(num_workers=1, **rewards))


def _run(store: Store, inputs: dict[str, ArtifactRef], **rewards: Any) -> list[dict[str, Any]]:
    ref = run_stage(VERIFY, _config(**rewards), inputs, store)
    return store.open(ref).table().to_pylist()


def test_rewards_of_a_group(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    texts = [
        ("p", "so \\boxed{5}", "stop"),
        ("p", "so \\boxed{6}", "stop"),
        ("p", "so \\boxed{5}", "length"),
        ("p", "no idea", "stop"),
        ("p", "", "error"),
        ("q", "\\boxed{1}", "stop"),
    ]
    inputs = {"prompts": _prompts(store, {"p": "5", "q": ""}), "responses": _responses(store, texts)}
    seen: list[Event] = []
    ref = run_stage(VERIFY, _config(max_error_frac=0.0), inputs, store, progress=seen.append)
    rows = store.open(ref).table().to_pylist()
    assert [row["verdict"] for row in rows] == ["correct", "wrong", "wrong", "unparsed", "error", "error"]
    assert [row["truncated"] for row in rows] == [False, False, True, False, False, False]
    assert [row["correct"] for row in rows] == [1.0, 0.0, 0.0, 0.0, None, None]
    assert rows[0]["reward"] > 1.0
    assert rows[1]["reward"] == rows[2]["reward"] == rows[3]["reward"] == pytest.approx(0.1)
    assert rows[4]["reward"] is None
    assert rows[5]["reward"] is None
    metrics = store.open(ref).manifest.metrics
    assert metrics["ungradable_prompts"] == ["q"]
    assert metrics["verdicts"] == {"correct": 1, "error": 2, "unparsed": 1, "wrong": 2}
    assert metrics["truncated"] == 1
    # Neither an ungradable prompt nor a teacher's failed request is a failed check.
    assert (metrics["error_frac"], metrics["failed_responses"], metrics["ungradable_responses"]) == (0, 1, 1)
    assert (seen[-1].done, seen[-1].total) == (6, 6)


def test_nothing_gradable_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    inputs = {"prompts": _prompts(store, {"p": ""}), "responses": _responses(store, [("p", "1", "stop")])}
    with pytest.raises(StageError, match="no reference answer"):
        _run(store, inputs)


def test_a_response_to_an_unknown_prompt_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    inputs = {"prompts": _prompts(store, {"p": "1"}), "responses": _responses(store, [("x", "1", "stop")])}
    with pytest.raises(ArtifactError, match="x/0"):
        _run(store, inputs)


def test_too_many_timeouts_fail_the_stage_and_only_they_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    texts = [("p", "\\boxed{5}", "stop"), ("p", TOWER, "stop"), ("p", "\\boxed{6}", "stop")]
    inputs = {"prompts": _prompts(store, {"p": "5"}), "responses": _responses(store, texts)}
    with pytest.raises(ErrorRateError, match=r"33\.33%"):
        _run(store, inputs, timeout_s=0.4)
    assert store.find("verify", "none") is None
    graded: list[int] = []
    grade = stage.Grader.grade
    monkeypatch.setattr(
        stage.Grader, "grade", lambda self, items: graded.append(len(items)) or grade(self, items)
    )
    rows = _run(store, inputs, timeout_s=0.4, max_error_frac=0.5)
    assert graded == [1]
    assert [row["verdict"] for row in rows] == ["correct", "timeout", "wrong"]
    assert rows[1]["reward"] is None


def test_a_killed_stage_goes_on_from_its_shards_and_gives_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SHARD_ROWS", 2)
    texts = [("p", f"so it is {i % 4}", "stop") for i in range(9)]
    whole, broken = (
        (store, {"prompts": _prompts(store, {"p": "3"}), "responses": _responses(store, texts)})
        for store in (Store(str(tmp_path / "whole")), Store(str(tmp_path / "broken")))
    )
    write = stage.ArtifactWriter.write_shard

    def write_and_die(self: Any, key: str, table: pa.Table) -> None:
        write(self, key, table)
        if key.endswith("2"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage.ArtifactWriter, "write_shard", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_stage(VERIFY, _config(), broken[1], broken[0])
    resumed = run_stage(VERIFY, _config(), broken[1], broken[0])
    uninterrupted = run_stage(VERIFY, _config(), whole[1], whole[0])
    assert resumed.content_hash == uninterrupted.content_hash
    assert (resumed.outcome, uninterrupted.outcome) == ("resumed", "ran")


def test_the_result_does_not_depend_on_workers_or_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [("p", f"\\boxed{{x+{i % 5}}}", "stop") for i in range(30)]
    hashes = set()
    for i, (workers, shard) in enumerate([(1, 5000), (2, 7), (1, 1)]):
        monkeypatch.setattr(stage, "_SHARD_ROWS", shard)
        store = Store(str(tmp_path / str(i)))
        inputs = {"prompts": _prompts(store, {"p": "x+3"}), "responses": _responses(store, texts)}
        config = DistillConfig(rewards=RewardsConfig(num_workers=workers))
        hashes.add(run_stage(VERIFY, config, inputs, store).content_hash)
    assert len(hashes) == 1


def test_what_decides_verdicts_is_identity() -> None:
    assert {"math-verify", "latex2sympy2_extended", "sympy", "reasoning-gym"} <= set(
        stage.identity(DistillConfig(), {})["verifiers"]
    )
    assert {"timeout_s", "memory_bytes"} <= set(DistillConfig().rewards.identity())
    assert "num_workers" not in DistillConfig().rewards.identity()


def test_failed_requests_leave_the_error_rate_alone(tmp_path: Path) -> None:
    """One undecided of two that were to be graded is half, however many requests failed."""
    store = Store(str(tmp_path))
    texts = [("p", "\\boxed{5}", "stop"), ("p", TOWER, "stop"), *[("p", "", "error")] * 6]
    inputs = {"prompts": _prompts(store, {"p": "5"}), "responses": _responses(store, texts)}
    with pytest.raises(ErrorRateError, match=r"50\.00%"):
        _run(store, inputs, timeout_s=0.4)


def test_an_ungradable_prompt_has_no_rewards_whatever_its_verifier_says(tmp_path: Path) -> None:
    """A verifier that cannot read the reference would call every response wrong, or right."""
    store = Store(str(tmp_path))
    texts = [("p", "The answer is (B)", "stop"), ("q", "The answer is (B)", "stop")]
    inputs = {
        "prompts": _prompts(store, {"p": "?", "q": "B"}, "choice"),
        "responses": _responses(store, texts),
    }
    rows = _run(store, inputs)
    assert [(row["verdict"], row["reward"] is None) for row in rows] == [("error", True), ("correct", False)]


def test_an_installed_verifier_enters_the_fingerprint_of_its_own_task_alone(own_verifiers: Path) -> None:
    def found(task: str, **params: str) -> dict[str, str]:
        evaluation = {"sets": [{"name": "slow", "task": "sleepy"}]}
        config = DistillConfig.model_validate({"prompts": {"task": task}, "evaluation": evaluation})
        return dict(stage.identity(config, params)["verifiers"])

    plain = {name: version(name) for name in stage._DECIDING}
    assert found("math") == plain  # as without any package
    assert found("math", set="slow") == plain | {"sleepy": "own-verifiers==1.2"}
    assert found("raises") == plain | {"raises": "own-verifiers==1.2"}
    assert {"sleepy", "raises"} <= found("math", set="of another configuration").keys()
