"""Budgets stop a generation before they are passed, and raising them pays nothing twice."""

from pathlib import Path
from typing import Any

import pytest
from counting_endpoint import CountingEndpoint

from advdistill_core.config import DistillConfig, TeacherConfig
from advdistill_core.errors import BudgetError
from advdistill_core.progress import Event
from advdistill_core.stages import GENERATE, LOAD, run_stage
from advdistill_core.store import Artifact, Store

NUM, K, TOKENS = 20, 2, 7
PRICES = {"prompt": 2.0, "completion": 10.0}


def generate(
    root: Path, server: CountingEndpoint, progress: Any = lambda e: None, **teacher: Any
) -> Artifact:
    document = {
        "prompts": {"num_train": NUM, "num_heldout": 1},
        "teacher": {
            "backend": "openai", "model": "m", "base_url": server.url, "k": K, "shard_size": 3,
            "concurrency": 2, "max_new_tokens": 2 * TOKENS, **teacher,
        },
    }  # fmt: skip
    config, store = DistillConfig.model_validate(document), Store(str(root))
    loaded = run_stage(LOAD, config, {}, store)
    return store.open(run_stage(GENERATE, config, {"prompts": loaded}, store, progress=progress))


@pytest.mark.parametrize("limit", [100, 150, 200, 279])
def test_a_budget_of_tokens(tmp_path: Path, limit: int) -> None:
    with CountingEndpoint(tokens=TOKENS) as server:
        with pytest.raises(BudgetError, match=rf"teacher\.budget\.tokens = {limit}") as raised:
            generate(tmp_path, server, budget={"tokens": limit})
        spent = server.num_asked * TOKENS
        assert f"got {spent} tokens spent" in str(raised.value)
        assert "\n" not in str(raised.value)
        # Not passed, and no other request would have fitted however long it became.
        assert limit - 2 * TOKENS * K < spent <= limit
        with pytest.raises(BudgetError):  # the same command spends nothing more
            generate(tmp_path, server, budget={"tokens": limit})
        assert server.num_asked * TOKENS == spent
        artifact = generate(tmp_path, server, budget={"tokens": NUM * K * TOKENS + 2 * K * TOKENS})
        assert server.num_asked == NUM * K  # nothing twice
    assert artifact.manifest.outcome == "resumed"
    assert artifact.manifest.tokens["generated"] == NUM * K * TOKENS


def test_a_budget_of_money(tmp_path: Path) -> None:
    with CountingEndpoint(tokens=TOKENS) as server:
        with pytest.raises(BudgetError, match=r"in money spent.*teacher\.budget\.money = 0\.0015"):
            generate(tmp_path, server, prices=PRICES, budget={"money": 0.0015})
        requests = len(server.bodies)
        assert 0 < (requests * 11 * 2 + server.num_asked * TOKENS * 10) / 1e6 <= 0.0015
        artifact = generate(tmp_path, server, prices=PRICES, budget={"money": 1.0})
        assert server.num_asked == NUM * K
    metrics = artifact.manifest.metrics
    assert metrics["prompt_tokens"] == NUM * 11
    assert metrics["cost"] == pytest.approx((NUM * 11 * 2 + NUM * K * TOKENS * 10) / 1e6)
    assert metrics["finish_reasons"] == {"stop": NUM * K}


def test_what_is_reused_costs_nothing(tmp_path: Path) -> None:
    with CountingEndpoint(tokens=TOKENS) as server:
        generate(tmp_path, server, prices=PRICES)
        again = generate(tmp_path, server, prices=PRICES, k=K + 1, budget={"tokens": NUM * 2 * TOKENS})
        assert server.num_asked == NUM * (K + 1)
    assert again.manifest.tokens["generated"] == NUM * TOKENS
    assert again.manifest.metrics["cost"] == pytest.approx((NUM * 11 * 2 + NUM * TOKENS * 10) / 1e6)


def test_spend_speed_and_time_left_are_told(tmp_path: Path) -> None:
    events: list[Event] = []
    with CountingEndpoint(seconds=0.15, tokens=TOKENS) as server:
        generate(tmp_path, server, events.append, prices=PRICES)
    mine = [event.figures for event in events if event.stage == "generate"]
    assert mine[-1]["spent"] == pytest.approx((NUM * 11 * 2 + NUM * K * TOKENS * 10) / 1e6)
    assert [f["spent"] for f in mine] == sorted(f["spent"] for f in mine)
    late = [figures for figures in mine if "tokens/s" in figures]
    assert late[-1]["tokens/s"] == pytest.approx(NUM * K * TOKENS / 1.5, rel=0.7)
    assert late[-1]["eta_s"] == 0


def test_settings_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(ValueError, match="all prices are 0"):
        TeacherConfig(budget={"money": 1.0})
    with pytest.raises(ValueError, match="names a teacher twice"):
        TeacherConfig(mixture=[{"model": "a"}, {"model": "a"}])
    with pytest.raises(ValueError, match="base_url is missing"):
        TeacherConfig(mixture=[{"backend": "openai", "model": "a"}])
    with pytest.raises(ValueError, match="more_base_urls would be ignored"):
        TeacherConfig(more_base_urls=["http://a/v1"])


def test_the_new_settings_leave_old_fingerprints() -> None:
    """What is at its default leaves a configuration the one it was before there were such settings."""
    plain = TeacherConfig().identity()
    known = ("backend", "model", "k", "temperature", "top_p", "top_k", "max_new_tokens", "seed")
    assert set(plain) == {*known, "dtype", "trust_remote_code", "send_seed"}
    assert TeacherConfig(workers=3, budget={"tokens": 5}, reuse=False).identity() == plain
    assert TeacherConfig(system="x").identity() == {**plain, "system": "x"}
