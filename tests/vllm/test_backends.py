"""The same prompts through every backend with a real model: one table, nearly the same answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm_fixture import ENGINE, Endpoint, generate

from advdistill_core.store import Artifact, tables

pytestmark = pytest.mark.real_model

Run = Callable[..., dict[str, Artifact]]


@pytest.fixture
def all_backends(
    vllm_server: Endpoint, transformers_server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Generate with each backend in turn, with the same settings."""
    monkeypatch.setenv("TEST_VLLM_KEY", vllm_server.key)
    backends: dict[str, dict[str, Any]] = {
        "transformers": {"backend": "transformers", "device": "cpu"},
        "vllm": {"backend": "vllm", "vllm": ENGINE},
        "openai to vLLM": {
            "backend": "openai", "base_url": vllm_server.url, "model": vllm_server.model,
            "api_key_env": "TEST_VLLM_KEY", "send_seed": False, "timeout_s": 900,
        },
        "openai to transformers serve": {
            "backend": "openai", "base_url": transformers_server.url, "model": transformers_server.model,
            "concurrency": 2, "timeout_s": 900,
        },
    }  # fmt: skip

    def run(num: int, **settings: Any) -> dict[str, Artifact]:
        name = "-".join(map(str, settings.values()))
        return {
            backend: generate(tmp_path / name / backend, num, **chosen, **settings)
            for backend, chosen in backends.items()
        }

    return run


def check_tables(found: dict[str, Artifact], num: int, k: int, longest: int = 32) -> None:
    """One schema, every sample of every prompt once, sound counts, no failures."""
    keys = None
    for backend, artifact in found.items():
        table = artifact.table()
        assert table.schema.equals(tables.RESPONSES), backend
        rows = table.to_pylist()
        if keys is None:
            keys = [(r["prompt_id"], r["sample_id"]) for r in rows]
            assert len(set(keys)) == len(keys) == num * k
        assert [(r["prompt_id"], r["sample_id"]) for r in rows] == keys, backend
        assert {r["finish_reason"] for r in rows} <= {"stop", "length"}, backend
        assert all(1 <= r["num_tokens"] <= longest for r in rows), backend
        assert all((r["finish_reason"] == "length") <= (r["num_tokens"] == longest) for r in rows), backend
        assert artifact.manifest.tokens["generated"] == sum(r["num_tokens"] for r in rows)
        assert "<|im_" not in "".join(r["text"] for r in rows), backend


def agreement(found: dict[str, Artifact]) -> dict[str, tuple[int, int]]:
    """How many responses are those of the first backend, letter for letter, of how many."""
    texts = {name: artifact.table()["text"].to_pylist() for name, artifact in found.items()}
    reference = texts.pop("transformers")
    return {
        name: (sum(a == b for a, b in zip(reference, other, strict=True)), len(reference))
        for name, other in texts.items()
    }


def test_one_table_from_all_backends(all_backends: Run) -> None:
    found = all_backends(8, k=4, temperature=0.0, max_new_tokens=16)
    check_tables(found, 8, 4, 16)
    for backend, (equal, total) in agreement(found).items():
        print(f"greedy, {backend}: {equal} of {total} as transformers")
        assert equal >= 0.75 * total, backend


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sixty_four_prompts_of_eight_from_all_backends(all_backends: Run) -> None:
    found = all_backends(64, k=8, temperature=0.8, max_new_tokens=16)
    check_tables(found, 64, 8, 16)
    for backend, artifact in found.items():
        texts = artifact.table()["text"].to_pylist()
        different, seconds = len(set(texts)), artifact.manifest.seconds
        print(f"sampled, {backend}: {different} different of {len(texts)}, {seconds:.0f} s")
        assert different > 0.5 * len(texts), backend


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sixty_four_greedy_answers_agree(all_backends: Run) -> None:
    found = all_backends(64, k=1, temperature=0.0)
    check_tables(found, 64, 1)
    for backend, (equal, total) in agreement(found).items():
        print(f"greedy, {backend}: {equal} of {total} as transformers")
        assert equal >= 0.9 * total, backend
