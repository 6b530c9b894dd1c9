"""The stage `push`: the data set and the student on a model hub, off unless a repository is named.

The token is what `huggingface_hub` finds (HF_TOKEN or its login), the address HF_ENDPOINT; neither
is ever in a setting, a table or a log.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advdistill_core.config import DistillConfig
from advdistill_core.errors import StageError
from advdistill_core.progress import Event, Progress
from advdistill_core.store import Artifact, ArtifactWriter

TABLES = ("prompts", "responses", "rewards", "weights")


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """What is pushed where; pushing the same twice is one push."""
    hub = {"dataset": config.storage.hub_dataset, "model": config.storage.hub_model}
    return {"hub": {**hub, "endpoint": os.environ.get("HF_ENDPOINT", "")}}


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Push what has a repository and write `pushed.json` with the addresses.

    Raises:
        StageError: the hub refuses or cannot be reached.
    """
    storage = config.storage
    wanted = [("dataset", storage.hub_dataset, dataset_folder), ("model", storage.hub_model, model_folder)]
    pushed = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, repository, fill in wanted:
            if repository:
                progress(Event(stage="push", done=0, total=0, unit="", message=f"pushing to {repository}"))
                folder = Path(scratch) / kind
                folder.mkdir()
                fill(inputs, folder)
                pushed[kind] = _upload(kind, repository, folder, storage.hub_private)
    out.write_file("pushed.json", json.dumps(pushed, indent=1).encode())
    out.note(metrics={"pushed": pushed})


def dataset_folder(inputs: Mapping[str, Artifact], folder: Path) -> None:
    """A folder that `datasets.load_dataset(folder, TABLE)` reads."""
    (folder / "README.md").write_bytes(inputs["report"].file("dataset_card.md"))
    for name in TABLES:
        target = folder / name
        target.mkdir()
        for part in inputs[name].manifest.parts:
            if part.name.endswith(".parquet"):
                (target / part.name).write_bytes(inputs[name].file(part.name))


def model_folder(inputs: Mapping[str, Artifact], folder: Path) -> None:
    """A folder that `from_pretrained` reads, with the model card."""
    source = inputs["student"].local_path()
    for part in inputs["student"].manifest.parts:
        if not part.name.endswith(".parquet"):
            (folder / part.name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / part.name, folder / part.name)
    (folder / "README.md").write_bytes(inputs["report"].file("model_card.md"))


def _upload(kind: str, repository: str, folder: Path, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        found = api.upload_folder(
            repo_id=repository, repo_type=kind, folder_path=folder, commit_message="AdvDistill"
        )
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        why = str(error).splitlines()[0]
        raise StageError(
            f"stage push, {repository}: {type(error).__name__}: {why}. Check the name, HF_TOKEN and the "
            "network; the run is kept, the same command pushes it."
        ) from error
    return str(found)
