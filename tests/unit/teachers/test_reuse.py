"""Nothing is generated twice: what earlier runs got is taken, and only that."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from counting_endpoint import CountingEndpoint

from advdistill_core.config import DistillConfig
from advdistill_core.errors import StageError
from advdistill_core.progress import Event
from advdistill_core.stages import GENERATE, LOAD, VERIFY, run_stage
from advdistill_core.store import Artifact, ArtifactRef, Store, tables
from advdistill_core.teachers.local import Engine
from advdistill_core.teachers.protocol import OnTokens, Request, Response, Sampling

Row = dict[str, Any]
NUM, K = 6, 2


def config(root: Path, num: int, teacher: Row, **sections: Row) -> DistillConfig:
    document = {
        "prompts": {"num_train": num, "num_heldout": 1},
        "teacher": {"k": K, "max_new_tokens": 6, "shard_size": 4, **teacher},
        "storage": {"root": str(root)},
    }
    return DistillConfig.model_validate({**document, **sections})


def generate(root: Path, num: int = NUM, progress: Any = lambda event: None, **teacher: Any) -> Artifact:
    settings = {"model": "tiny-random-llama", "device": "cpu"} if "base_url" not in teacher else {}
    wanted, store = config(root, num, settings | teacher), Store(str(root))
    loaded = run_stage(LOAD, wanted, {}, store)
    return store.open(run_stage(GENERATE, wanted, {"prompts": loaded}, store, progress=progress))


def rows_of(artifact: Artifact) -> dict[tuple[str, int], Row]:
    rows = artifact.table().to_pylist()
    found = {(row["prompt_id"], row["sample_id"]): row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples asked of the local engine."""
    found: list[int] = []
    original = Engine.generate

    def counting(
        self: Engine, requests: Iterable[Request], sampling: Sampling, on_tokens: OnTokens | None = None
    ) -> Iterator[Response]:
        def taken() -> Iterator[Request]:
            for request in requests:
                found.extend(s for s, _ in request.samples)
                yield request

        return original(self, taken(), sampling, on_tokens)

    monkeypatch.setattr(Engine, "generate", counting)
    return found


def test_more_samples_and_prompts_ask_only_for_what_is_missing(tmp_path: Path, asked: list[int]) -> None:
    before = generate(tmp_path)
    asked.clear()
    after = generate(tmp_path, num=NUM + 3, k=K + 2, shard_size=5)
    assert len(asked) == 2 * NUM + 4 * 3
    old, new = rows_of(before), rows_of(after)
    assert all(new[key] == row for key, row in old.items())
    assert len(new) == (NUM + 3) * (K + 2)
    metrics = after.manifest.metrics
    assert (metrics["reused_responses"], metrics["new_responses"]) == (NUM * K, 2 * NUM + 4 * 3)
    assert metrics["reused_tokens"] == sum(row["num_tokens"] for row in old.values())
    assert after.manifest.tokens["generated"] == sum(
        row["num_tokens"] for key, row in new.items() if key not in old
    )


def test_the_result_is_as_if_nothing_had_been_there(tmp_path: Path) -> None:
    generate(tmp_path / "a")
    with_reuse = generate(tmp_path / "a", num=NUM + 3, k=K + 2)
    alone = generate(tmp_path / "b", num=NUM + 3, k=K + 2)
    assert with_reuse.manifest.metrics["reused_responses"] == NUM * K
    assert alone.manifest.metrics["reused_responses"] == 0
    assert with_reuse.manifest.content_hash() == alone.manifest.content_hash()


def test_fewer_samples_ask_for_nothing(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(generate(tmp_path))
    asked.clear()
    monkeypatch.setattr("advdistill_core.models.load_model", None)  # calling it would fail
    after = rows_of(generate(tmp_path, num=NUM - 2, k=1))
    assert asked == []
    assert all(before[key] == row for key, row in after.items())


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.7},
        {"top_p": 0.9},
        {"max_new_tokens": 5},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"system": "Be brief."},
        {"examples": [{"question": "1 + 1 =", "answer": "2"}]},
        {"reuse": False, "k": K + 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_request_is_another_response(tmp_path: Path, asked: list[int], change: Row) -> None:
    generate(tmp_path)
    asked.clear()
    artifact = generate(tmp_path, **change)
    assert len(asked) == NUM * artifact.manifest.config["teacher"]["k"]
    assert artifact.manifest.metrics["reused_responses"] == 0


def test_a_tokenizer_with_another_template_is_asked_again(tmp_path: Path, asked: list[int]) -> None:
    from advdistill_core.models import tiny

    tiny.build(tmp_path / "model")
    generate(tmp_path / "store", model=str(tmp_path / "model"))
    asked.clear()
    template = next((tmp_path / "model").glob("chat_template*"))
    template.write_text(template.read_text().replace("assistant", "teacher"))
    artifact = generate(tmp_path / "store", model=str(tmp_path / "model"), k=K + 1)
    assert len(asked) == NUM * (K + 1)
    assert artifact.manifest.metrics["reused_responses"] == 0


def test_a_changed_rubric_asks_for_nothing(tmp_path: Path, asked: list[int]) -> None:
    store = Store(str(tmp_path))
    teacher = {"model": "tiny-random-llama", "device": "cpu"}
    refs: list[ArtifactRef] = []
    for rewards in ({}, {"max_len": 99}):
        wanted = config(tmp_path, NUM, teacher, rewards=rewards)
        loaded = run_stage(LOAD, wanted, {}, store)
        responses = run_stage(GENERATE, wanted, {"prompts": loaded}, store)
        refs.append(run_stage(VERIFY, wanted, {"prompts": loaded, "responses": responses}, store))
    assert refs[0].fingerprint != refs[1].fingerprint
    assert refs[1].outcome == "ran"
    assert len(asked) == NUM * K


def test_an_unfinished_run_with_other_settings_is_a_source_too(tmp_path: Path, asked: list[int]) -> None:
    def stop(event: Event) -> None:
        if event.stage == "generate" and event.done >= 7:
            raise StageError("stop")

    with pytest.raises(StageError, match="stop"):
        generate(tmp_path, progress=stop, batch_size=2)
    asked.clear()
    artifact = generate(tmp_path, k=K + 1)
    reused = artifact.manifest.metrics["reused_responses"]
    assert reused >= 7
    assert len(asked) == NUM * (K + 1) - reused


def test_what_gc_removed_is_generated_again(tmp_path: Path, asked: list[int]) -> None:
    """Also between the index and the reading of a row."""
    before = generate(tmp_path)
    asked.clear()

    def remove(event: Event) -> None:
        if event.stage == "generate" and event.done:
            shutil.rmtree(tmp_path / before.folder, ignore_errors=True)

    after = generate(tmp_path, num=NUM + 6, k=K + 1, shard_size=2, progress=remove)
    assert len(rows_of(after)) == (NUM + 6) * (K + 1)
    assert len(asked) + after.manifest.metrics["reused_responses"] == (NUM + 6) * (K + 1)


def test_an_altered_artifact_is_no_source(tmp_path: Path, asked: list[int]) -> None:
    before = generate(tmp_path)
    part = next((tmp_path / before.folder).glob("*.parquet"))
    part.write_bytes(part.read_bytes().replace(b"PAR1", b"PAR2"))
    asked.clear()
    after = generate(tmp_path, k=K + 1)
    assert len(asked) == NUM * (K + 1)
    assert after.manifest.metrics["reused_responses"] == 0


def test_failed_requests_are_never_reused(tmp_path: Path) -> None:
    with CountingEndpoint() as server:
        refused = True

        def answer(body: Row, original: Any = server.answer) -> bytes:
            broken = refused and len(server.bodies) % 2 == 0
            whole = original(body)
            return b"{}" if broken else whole

        server.answer = answer  # type: ignore[method-assign]
        settings = {"backend": "openai", "model": "m", "base_url": server.url, "max_retries": 0}
        first = generate(tmp_path, **settings, max_error_frac=1.0)
        failed = sum(row["finish_reason"] == "error" for row in rows_of(first).values())
        assert 0 < failed < NUM * K
        refused = False
        again = generate(tmp_path, **settings, k=K + 1)
    assert again.manifest.metrics["reused_responses"] == NUM * K - failed
    assert {row["finish_reason"] for row in rows_of(again).values()} == {"stop"}


def test_the_server_is_asked_for_what_is_missing_only(tmp_path: Path) -> None:
    """From k = 4 to 8 and 20 new prompts, counted by the server."""
    with CountingEndpoint() as server:
        settings = {"backend": "openai", "model": "m", "base_url": server.url}
        first = generate(tmp_path, num=30, k=4, **settings)
        assert server.num_asked == 30 * 4
        server.asked.clear()
        second = generate(tmp_path, num=50, k=8, **settings)
        assert server.num_asked == 30 * 4 + 20 * 8
        assert sorted(server.asked.values()) == [4] * 30 + [8] * 20
    old, new = rows_of(first), rows_of(second)
    assert len(new) == 50 * 8
    assert all(new[key] == row for key, row in old.items())
    assert second.manifest.metrics["reused_responses"] == 120
    assert second.manifest.tokens["generated"] == 280 * 7


@pytest.mark.parametrize("believed", ["stamp", "manifest"])
def test_altered_bytes_that_look_untouched_are_no_source(
    tmp_path: Path, asked: list[int], believed: str
) -> None:
    """A part with other texts whose size and stamp fit, and one that an altered manifest calls its own."""
    store, before = Store(str(tmp_path)), generate(tmp_path)
    part = next(part for part in before.manifest.parts if part.name.endswith(".parquet"))
    name = f"{before.folder}/{part.name}"
    table = before.table()
    altered = table.set_column(table.schema.get_field_index("text"), "text", pa.array(["no"] * len(table)))
    store.files.write(name, tables.encode(altered))
    found = store.files.size_and_stamp(name)
    assert found is not None
    part.size_bytes, part.stamp = found
    body = before.manifest.to_file()
    if believed == "manifest":
        body = body.replace(part.sha256.encode(), store.files.sha256(name).encode())
    store.files.write(f"{before.folder}/manifest.json", body)
    asked.clear()
    after = generate(tmp_path, k=K + 1)
    assert len(asked) == NUM * (K + 1)
    assert after.manifest.metrics["reused_responses"] == 0


def test_good_parts_of_a_damaged_artifact_are_a_source(tmp_path: Path, asked: list[int]) -> None:
    """Its manifest is kept aside, sealed, while the artifact is made anew."""
    store, before = Store(str(tmp_path)), generate(tmp_path)
    store.begin("generate", "1", before.manifest.fingerprint, "responses")  # and was killed
    asked.clear()
    after = generate(tmp_path)
    assert asked == []
    assert after.manifest.content_hash() == before.manifest.content_hash()
