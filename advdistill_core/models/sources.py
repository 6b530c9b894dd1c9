"""What a model name stands for, whether it can be used, and what identifies its content."""

import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advdistill_core.errors import InputError
from advdistill_core.models import folders, smollm2, tiny
from advdistill_core.models.home import sha256
from advdistill_core.store import Artifact, Store
from advdistill_core.store.fingerprint import canonical_json

#: Names of models that are made on this machine: how, and from which file if any.
BUILT_IN: dict[str, Callable[[], Path]] = {smollm2.NAME: smollm2.folder, tiny.NAME: tiny.folder}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_TIMEOUT_S = 5.0
_REMEDY = f"Use a model folder, a Hub name such as org/model, or {smollm2.NAME}."


@dataclass(frozen=True)
class Source:
    """Where `from_pretrained` finds a model: a folder, or a Hub name with its commit."""

    location: str
    revision: str | None = None


def as_folder(name: str) -> Path | None:
    """The folder that a name stands for, or None for a name of the Hub.

    The URI of a trained student (`s3://bucket/prefix/train/<fingerprint>`) stands for a copy
    of it on this machine.
    """
    if "://" in name:
        return _fetched(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    return path if name.startswith(("/", ".", "~")) or name.count("/") > 1 else None


def _fetched(uri: str) -> Path:
    root, stage, fingerprint = uri.rstrip("/").rsplit("/", 2)
    if "://" not in root:
        return Path(uri)
    store = Store(root)
    manifest = store.manifest(stage, fingerprint)
    return Path(uri) if manifest is None else Artifact(store, manifest).local_path()


def resolve(name: str) -> Source:
    """Find a model, making it first if it is a built-in one.

    Raises:
        InputError: the name cannot be used; see `check`.
    """
    check(name)
    if name in BUILT_IN:
        return Source(str(BUILT_IN[name]()))
    folder = as_folder(name)
    return Source(str(folder.absolute())) if folder else Source(name, _hub_commit(name))


def identity(name: str) -> str:
    """A text that changes exactly when the model's content may have.

    Costs milliseconds once the files have been hashed.

    Raises:
        InputError: the name cannot be used; see `check`.
    """
    if name == smollm2.NAME:
        check(name)
        return smollm2.identity()
    if name in BUILT_IN:
        return folder_hash(BUILT_IN[name]())
    folder = as_folder(name)
    if folder is not None:
        check(name)
        return folder_hash(folder)
    return f"{name}@{_hub_commit(name) or 'main'}"


def folder_hash(folder: Path) -> str:
    """Hash of what loading a folder reads: configuration, tokenizer, template, weights."""
    files = sorted(
        path
        for pattern in ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py")
        for path in folder.glob(pattern)
        if path.is_file()
    )
    content = [[path.name, sha256(path)] for path in files]
    return "sha256:" + hashlib.sha256(canonical_json(content).encode()).hexdigest()[:32]


def check(name: str) -> None:
    """Refuse a model name that cannot be loaded, before anything is.

    Raises:
        InputError: a folder without configuration or safetensors weights, an unknown
            name, or a built-in model whose package is missing.
    """
    if name == smollm2.NAME:
        smollm2.check()
    elif name not in BUILT_IN:
        folder = as_folder(name)
        _check_hub(name) if folder is None else folders.check(folder, _REMEDY)


def num_layers(name: str) -> int | None:
    """How many layers a model has, where its configuration is on this machine; else None."""
    if name in BUILT_IN and name != smollm2.NAME:
        folder: Path | None = BUILT_IN[name]()
    else:
        folder = None if name == smollm2.NAME else as_folder(name)
    if folder is None:
        return None
    count = folders.read_config(folder).get("num_hidden_layers")
    return count if isinstance(count, int) else None


def whereabouts(name: str) -> str:
    """Where a model that passed `check` is taken from, in words."""
    if name in BUILT_IN:
        return "built in"
    if as_folder(name) is not None:
        return "a folder"
    return "in the cache" if _cached_commit(name) is not None else "on the Hub, not downloaded yet"


def _check_hub(name: str) -> None:
    nearest = difflib.get_close_matches(name, BUILT_IN, n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else _REMEDY
    if not _HUB_NAME.fullmatch(name):
        raise InputError("model", name, "a folder, a Hub name or a built-in name", hint)
    if nearest and "/" not in name:  # rather a slip than one of the few Hub names without owner
        raise InputError("model", name, "a folder, a Hub name or a built-in name", hint)
    if _cached_commit(name) is not None:
        return
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        info = _hub_info(name)
    except HfHubHTTPError as error:
        raise InputError(
            "model", name, "a model that the Hub gives access to", f"A gated one needs HF_TOKEN. {hint}"
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise InputError(
            "model",
            f"{name}, and the Hub is not reachable",
            "a model on this machine, or one of the Hub",
            f"Check the network, HF_ENDPOINT and HF_TOKEN. {hint}",
        ) from error
    files = [sibling.rfilename for sibling in info.siblings or []]
    if not any(file.endswith(".safetensors") for file in files):
        raise InputError("model", name, "a Hub model with safetensors weights", _REMEDY)


def _hub_info(name: str) -> Any:
    from huggingface_hub import HfApi

    return HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)


def _cached_commit(name: str) -> str | None:
    """The commit of `main` in the local Hub cache, if its configuration is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


def _hub_commit(name: str) -> str | None:
    """The commit that `main` stands for: as the Hub says, else as cached, else unknown."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        commit: str | None = _hub_info(name).sha
    except (httpx.HTTPError, OSError):
        commit = _cached_commit(name)
    return commit
