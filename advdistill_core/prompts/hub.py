"""Questions from the datasets library: a Hub name or a local folder."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advdistill_core.config import PromptSource
from advdistill_core.errors import InputError
from advdistill_core.models.home import sha256
from advdistill_core.prompts.files import to_question
from advdistill_core.prompts.types import Question
from advdistill_core.store.fingerprint import canonical_json


def precheck(config: PromptSource) -> None:
    """Check that a local folder is there; a Hub name is resolved when it is loaded."""
    assert config.dataset is not None
    if _looks_local(config.dataset) and not Path(config.dataset).expanduser().is_dir():
        raise InputError("prompts.dataset", config.dataset, "a folder that exists, or a Hub name")


def identity(config: PromptSource) -> dict[str, str]:
    """A folder by its files' content; a Hub dataset by its name and commit."""
    assert config.dataset is not None
    folder = Path(config.dataset).expanduser()
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        content = [[str(path.relative_to(folder)), sha256(path)] for path in files]
        return {"sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest()[:32]}
    return {"name": config.dataset, "commit": _commit(config.dataset)}


def read(config: PromptSource) -> Iterator[Question]:
    """Read the chosen split in order.

    Raises:
        InputError: the dataset or the split cannot be loaded, or a row is wrong.
    """
    import datasets

    assert config.dataset is not None
    folder = Path(config.dataset).expanduser()
    try:
        if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded: Any = datasets.load_from_disk(str(folder))
            rows = loaded[config.dataset_split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            rows = datasets.load_dataset(
                config.dataset,
                config.dataset_config,
                split=config.dataset_split,
                revision=None if folder.is_dir() else _commit(config.dataset),
            )
    except (OSError, ValueError, KeyError) as error:  # what datasets raises for a name it cannot load
        problem = f"{config.dataset} ({type(error).__name__}: {error})"
        raise InputError(
            "prompts.dataset", problem, "a dataset and split that load", "Check the name and the split."
        ) from error
    for number, row in enumerate(rows, 1):
        where = f"{config.dataset} {config.dataset_split} row {number}"
        yield to_question(row, config, where, f"{config.dataset}/{config.dataset_split}")


def _looks_local(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def _commit(name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return str(HfApi().dataset_info(name, timeout=5.0).sha)
    except (httpx.HTTPError, OSError):
        return "main"
