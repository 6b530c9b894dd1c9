"""Questions from the datasets library: a Hub name or a local folder."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advdistill_core.config import PromptSource
from advdistill_core.errors import InputError
from advdistill_core.models.home import sha256
from advdistill_core.prompts.files import to_question
from advdistill_core.prompts.types import Question
from advdistill_core.store.fingerprint import canonical_json

_TIMEOUT_S = 5.0


def precheck(config: PromptSource) -> bool:
    """Check that a folder, or the Hub's data set, is there.

    Returns:
        Whether all of it is on this machine, so that reading it costs no download.

    Raises:
        InputError: it is not.
    """
    assert config.dataset is not None
    if Path(config.dataset).expanduser().is_dir():
        return True
    if _looks_local(config.dataset):
        raise InputError(
            "prompts.dataset", config.dataset, "a folder that exists, or a Hub name", "Check the path."
        )
    _check_hub(config.dataset)
    return False


def _check_hub(name: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        HfApi().dataset_info(name, timeout=_TIMEOUT_S)
    except HFValidationError as error:
        raise InputError("prompts.dataset", name, "a folder, or a Hub name such as org/name", "") from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            raise InputError(
                "prompts.dataset",
                name,
                "a data set that the Hub gives access to",
                "Check the name; a gated one needs HF_TOKEN.",
            ) from error
    except (httpx.HTTPError, OSError) as error:
        if not _is_cached(name):
            raise InputError(
                "prompts.dataset",
                f"{name}, and the Hub is not reachable",
                "a folder, or a data set of the Hub",
                "Check the network, HF_ENDPOINT and HF_TOKEN, or read a file with prompts.path.",
            ) from error


def _is_cached(name: str) -> bool:
    """Whether the datasets library has prepared it before, under its own spelling of the name."""
    from huggingface_hub.constants import HF_HOME

    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets")
    return any(_letters(folder.name) == _letters(name) for folder in cache.glob("*___*"))


def _letters(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def identity(config: PromptSource) -> dict[str, str]:
    """A folder by its files' content; a Hub dataset by its name and commit."""
    assert config.dataset is not None
    folder = Path(config.dataset).expanduser()
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        content = [[str(path.relative_to(folder)), sha256(path)] for path in files]
        return {"sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest()[:32]}
    if _looks_local(config.dataset):
        raise InputError(
            "prompts.dataset", config.dataset, "a folder that exists, or a Hub name", "Check the path."
        )
    return {"name": config.dataset, "commit": _commit(config.dataset)}


def read(config: PromptSource) -> Iterator[Question]:
    """Read the chosen split in order.

    Raises:
        InputError: the dataset or the split cannot be loaded, or a row is wrong.
    """
    assert config.dataset is not None
    folder = Path(config.dataset).expanduser()
    try:
        with _no_bars():
            rows = _load(config, folder)
    except (OSError, ValueError, KeyError) as error:  # what datasets raises for a name it cannot load
        problem = f"{config.dataset} ({type(error).__name__}: {error})"
        raise InputError(
            "prompts.dataset", problem, "a dataset and split that load", "Check the name and the split."
        ) from error
    for number, row in enumerate(rows, 1):
        where = f"{config.dataset} {config.dataset_split} row {number}"
        yield to_question(row, config, where, f"{config.dataset}/{config.dataset_split}")


def _load(config: PromptSource, folder: Path) -> Any:
    import datasets

    if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
        loaded: Any = datasets.load_from_disk(str(folder))
        return loaded[config.dataset_split] if isinstance(loaded, datasets.DatasetDict) else loaded
    assert config.dataset is not None
    return datasets.load_dataset(
        config.dataset,
        config.dataset_config,
        split=config.dataset_split,
        revision=None if folder.is_dir() else _commit(config.dataset),
    )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Silence the progress bars of datasets: progress is told by the stages."""
    import datasets

    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()


def _looks_local(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def _commit(name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return str(HfApi().dataset_info(name, timeout=_TIMEOUT_S).sha)
    except (httpx.HTTPError, OSError):
        return "main"
