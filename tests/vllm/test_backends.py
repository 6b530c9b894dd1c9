"""The same prompts through every backend with a real model: one table, nearly the same answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm_fixture import ENGINE, Endpoint, generate, settings

from advdistill_core.stages import LOAD, run_stage
from advdistill_core.store import Artifact, Store, tables

pytestmark = pytest.mark.real_model

Run = Callable[..., Artifact]
Runs = Callable[..., dict[str, Artifact]]


BACKENDS = ["transformers", "vllm", "openai to vLLM", "openai to transformers serve"]


@pytest.fixture
def one_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Run:
    """Generate with a backend by its name; its server is started when it is needed first."""

    def teacher(backend: str) -> dict[str, Any]:
        if backend == "transformers":
            return {"backend": "transformers", "device": "cpu"}
        if backend == "vllm":
            return {"backend": "vllm", "vllm": ENGINE}
        kind = "vllm_server" if backend == "openai to vLLM" else "transformers_server"
        server: Endpoint = request.getfixturevalue(kind)
        monkeypatch.setenv("TEST_KEY", server.key or "none")
        return {
            "backend": "openai", "base_url": server.url, "model": server.model, "api_key_env": "TEST_KEY",
            "timeout_s": 900,
            **({"send_seed": False} if kind == "vllm_server" else {"concurrency": 2}),
        }  # fmt: skip

    def run(backend: str, num: int, **sampling: Any) -> Artifact:
        folder = tmp_path / "-".join(map(str, sampling.values())) / backend
        return generate(folder, num, **teacher(backend), **sampling)

    return run


@pytest.fixture
def all_backends(one_backend: Run) -> Runs:
    """Generate with each backend in turn, with the same settings."""

    def run(num: int, **sampling: Any) -> dict[str, Artifact]:
        return {backend: one_backend(backend, num, **sampling) for backend in BACKENDS}

    return run


def check_tables(found: dict[str, Artifact], num: int, k: int, longest: int = 32) -> None:
    """One schema, every sample of every prompt once, sound counts, no failures."""
    keys = key_columns(next(iter(found.values())))
    assert len(set(keys)) == len(keys) == num * k
    for backend, artifact in found.items():
        check_table(backend, artifact, keys, longest)


def check_table(backend: str, artifact: Artifact, keys: list[tuple[str, int]], longest: int) -> None:
    table = artifact.table()
    assert table.schema.equals(tables.RESPONSES), backend
    rows = table.to_pylist()
    assert key_columns(artifact) == keys, backend
    assert {r["finish_reason"] for r in rows} <= {"stop", "length"}, backend
    assert all(1 <= r["num_tokens"] <= longest for r in rows), backend
    assert all((r["finish_reason"] == "length") <= (r["num_tokens"] == longest) for r in rows), backend
    assert artifact.manifest.tokens["generated"] == sum(r["num_tokens"] for r in rows)
    assert "<|im_" not in "".join(r["text"] for r in rows), backend


def key_columns(artifact: Artifact) -> list[tuple[str, int]]:
    return [(r["prompt_id"], r["sample_id"]) for r in artifact.table().to_pylist()]


def asked_keys(root: Path, num: int, k: int) -> list[tuple[str, int]]:
    """Prompt and sample of every response that a generation must have, in order."""
    store = Store(str(root / "asked"))
    prompts = store.open(run_stage(LOAD, settings(root / "asked", num), {}, store)).table("train")
    keys = [(name, sample) for name in prompts["prompt_id"].to_pylist() for sample in range(k)]
    assert len(set(keys)) == num * k
    return keys


def agreement(found: dict[str, Artifact]) -> dict[str, tuple[int, int]]:
    """How many responses are those of the first backend, letter for letter, of how many."""
    texts = {name: artifact.table()["text"].to_pylist() for name, artifact in found.items()}
    reference = texts.pop("transformers")
    return {
        name: (sum(a == b for a, b in zip(reference, other, strict=True)), len(reference))
        for name, other in texts.items()
    }


def test_one_table_from_all_backends(all_backends: Runs) -> None:
    found = all_backends(8, k=4, temperature=0.0, max_new_tokens=16)
    check_tables(found, 8, 4, 16)
    for backend, (equal, total) in agreement(found).items():
        print(f"greedy, {backend}: {equal} of {total} as transformers")
        assert equal >= 0.75 * total, backend


#: 64 x 8 responses of this many tokens take a core of its own 1 to 7 minutes per backend.
FEW = 16


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sixty_four_prompts_of_eight(one_backend: Run, tmp_path: Path, backend: str) -> None:
    """A test each, since they take long; the keys are those that the prompts ask for."""
    artifact = one_backend(backend, 64, k=8, temperature=0.8, max_new_tokens=FEW)
    check_table(backend, artifact, asked_keys(tmp_path, 64, 8), FEW)
    texts = artifact.table()["text"].to_pylist()
    different, seconds = len(set(texts)), artifact.manifest.seconds
    print(f"sampled, {backend}: {len(texts)} responses, {different} different, {seconds:.0f} s")
    assert different > 0.5 * len(texts)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sixty_four_greedy_answers_agree(all_backends: Runs) -> None:
    found = all_backends(64, k=1, temperature=0.0)
    check_tables(found, 64, 1)
    for backend, (equal, total) in agreement(found).items():
        print(f"greedy, {backend}: {equal} of {total} as transformers")
        assert equal >= 0.9 * total, backend
