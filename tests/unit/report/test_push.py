"""What a hub would get: a data set that `datasets` loads, a model folder with its card."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from report_fixture import CONFIG, make_run

from advdistill_core.config import DistillConfig
from advdistill_core.errors import StageError
from advdistill_core.report.push import TABLES
from advdistill_core.stages import PUBLISH, PUSH, run_stage
from advdistill_core.store import Artifact, Store


def configured(**storage: Any) -> DistillConfig:
    return DistillConfig.model_validate(CONFIG.model_dump() | {"storage": storage})


def pushed(folder: Path, config: DistillConfig) -> Artifact:
    store = Store(str(folder))
    refs = make_run(store)
    report = run_stage(PUBLISH, CONFIG, refs, store)
    inputs = {name: refs[name] for name in (*TABLES, "student")} | {"report": report}
    return store.open(run_stage(PUSH, config, inputs, store))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that is a folder: `<kind>/<repository>`."""
    import huggingface_hub

    root = tmp_path / "hub"

    class FolderApi:
        def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
            assert private
            assert exist_ok
            (root / repo_type / repo_id).mkdir(parents=True)

        def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, **_: Any) -> str:
            shutil.copytree(folder_path, root / repo_type / repo_id, dirs_exist_ok=True)
            return f"folder:{repo_type}/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", FolderApi)
    return root


def test_a_pushed_data_set_loads_by_table(hub: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    found = pushed(tmp_path / "store", configured(hub_dataset="me/data"))
    assert found.manifest.metrics["pushed"] == {"dataset": "folder:dataset/me/data"}
    folder = hub / "dataset" / "me" / "data"
    for name in TABLES:
        split = load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(split) == (45 if name == "prompts" else 20)
    assert "# made-up" in (folder / "README.md").read_text()
    assert not (hub / "model").exists()


def test_a_pushed_model_is_its_folder_with_the_card(hub: Path, tmp_path: Path) -> None:
    pushed(tmp_path / "store", configured(hub_model="me/model"))
    folder = hub / "model" / "me" / "model"
    assert "held-out questions" in (folder / "README.md").read_text()
    assert not list(folder.glob("*.parquet"))


def test_without_a_network_one_line_says_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    class Unreachable:
        def create_repo(self, *_: Any, **__: Any) -> None:
            raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    with pytest.raises(StageError, match=r"stage push, me/data: ConnectionError: no route to host"):
        pushed(tmp_path / "store", configured(hub_dataset="me/data"))


def test_a_repository_has_an_owner_and_a_name() -> None:
    with pytest.raises(ValueError, match="hub_dataset"):
        configured(hub_dataset="no owner")
