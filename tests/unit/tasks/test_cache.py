"""The cache key is the fingerprint; a record is believed only while its files are whole."""

from pathlib import Path
from typing import Any

import pytest
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ArtifactError
from advdistill_core.store import ArtifactRef, Store
from advdistill_core.store.tables import WEIGHTS
from tasks.cache import ReferenceSerializer, StagePolicy, result_folder


def config(root: Path, **changes: Any) -> DistillConfig:
    return DistillConfig.model_validate({"storage": {"root": str(root)}, **changes})


def artifact(root: Path, stage: str, fingerprint: str) -> ArtifactRef:
    out = Store(str(root)).begin(stage, "1", fingerprint, "weights")
    out.write_tables([WEIGHTS.empty_table()])
    return out.commit({}, {})


def key(stage: str, **inputs: Any) -> str | None:
    return StagePolicy(stage=stage).compute_key(None, inputs, {})


def test_key_follows_what_the_stage_reads(tmp_path: Path) -> None:
    responses, rewards = artifact(tmp_path, "generate", "a"), artifact(tmp_path, "verify", "b")
    base = key("weigh", config=config(tmp_path), responses=responses, rewards=rewards)
    assert base is not None
    assert base.startswith("weigh-")
    again = {"responses": responses, "rewards": rewards}
    assert key("weigh", config=config(tmp_path, teacher={"k": 3}), **again) == base
    assert key("weigh", config=config(tmp_path, weighting={"tau": 3}), **again) != base


def test_key_follows_the_inputs_content_not_their_outcome(tmp_path: Path) -> None:
    responses, rewards = artifact(tmp_path, "generate", "a"), artifact(tmp_path, "verify", "b")
    base = key("weigh", config=config(tmp_path), responses=responses, rewards=rewards)
    cached = responses.model_copy(update={"outcome": "cached", "seconds": 9.0})
    assert key("weigh", config=config(tmp_path), responses=cached, rewards=rewards) == base
    other = responses.model_copy(update={"content_hash": "x"})
    assert key("weigh", config=config(tmp_path), responses=other, rewards=rewards) != base


def test_key_tells_roots_apart(tmp_path: Path) -> None:
    keys = set()
    for name in ("one", "two"):
        refs = {
            "responses": artifact(tmp_path / name, "generate", "a"),
            "rewards": artifact(tmp_path / name, "verify", "b"),
        }
        keys.add(key("weigh", config=config(tmp_path / name), **refs))
    assert len(keys) == 2


def test_record_of_a_whole_artifact_is_read_as_cached(tmp_path: Path) -> None:
    ref = artifact(tmp_path, "weigh", "f")
    serializer = ReferenceSerializer()
    again = serializer.loads(serializer.dumps(ref))
    assert again.outcome == "cached"
    assert again.content_hash == ref.content_hash


@pytest.mark.parametrize("damage", ["delete", "truncate", "manifest"])
def test_record_of_a_damaged_artifact_is_refused(tmp_path: Path, damage: str) -> None:
    ref = artifact(tmp_path, "weigh", "f")
    part = Path(ref.uri) / "part-00000.parquet"
    if damage == "delete":
        part.unlink()
    elif damage == "truncate":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        (Path(ref.uri) / "manifest.json").unlink()
    serializer = ReferenceSerializer()
    with pytest.raises(ArtifactError, match="missing or altered"):
        serializer.loads(serializer.dumps(ref))


def test_records_are_plain_json(tmp_path: Path) -> None:
    import json

    blob = ReferenceSerializer().dumps(artifact(tmp_path, "weigh", "f"))
    assert set(json.loads(blob)) == {
        "stage",
        "fingerprint",
        "uri",
        "rows",
        "content_hash",
        "outcome",
        "seconds",
    }


def test_the_error_of_a_failed_task_is_kept_and_never_taken_for_a_reference() -> None:
    serializer = ReferenceSerializer()
    blob = serializer.dumps(ArtifactError("parts are missing"))
    assert b"parts are missing" in blob
    with pytest.raises(ArtifactError, match="expected a reference"):
        serializer.loads(blob)


def test_a_record_of_another_fingerprint_is_no_hit(tmp_path: Path) -> None:
    """What a stage's own process fingerprinted otherwise, since a package was installed meanwhile."""
    given = {"responses": artifact(tmp_path, "generate", "a"), "rewards": artifact(tmp_path, "verify", "b")}
    name = key("weigh", config=config(tmp_path), **given)
    assert name is not None
    folder = result_folder(config(tmp_path))
    assert folder is not None
    expected = name.split("-")[1]

    def remember(fingerprint: str) -> None:
        store = ResultStore(
            result_storage=LocalFileSystem(basepath=str(folder)), serializer=ReferenceSerializer()
        )
        store.write(artifact(tmp_path, "weigh", fingerprint), key=name)

    def is_hit() -> bool:
        assert key("weigh", config=config(tmp_path), **given) == name
        return ResultStore(result_storage=LocalFileSystem(basepath=str(folder))).exists(name)

    remember("c" * 32)
    assert not is_hit()
    remember(expected)
    assert is_hit()
