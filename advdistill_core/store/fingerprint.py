"""Fingerprints: the identity of a stage's result, from stable values only."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from advdistill_core.errors import FingerprintError

LENGTH = 32  # hex digits kept: 128 bits


def canonical_json(value: Any) -> str:
    """Encode plain JSON values with sorted keys and no spaces.

    Raises:
        FingerprintError: for anything whose text may differ between two processes (sets,
            paths, objects, NaN, keys that are not strings).
    """
    _refuse_unstable(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(stage: str, version: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Hash a stage's name and version, the configuration it reads and its inputs' contents.

    Args:
        stage: name of the stage.
        version: version of its algorithm; raised when the same input gives another output.
        config: exactly the fields that the stage reads, as JSON values.
        inputs: content hash of each input.
    """
    document = {"stage": stage, "version": version, "config": dict(config), "inputs": dict(inputs)}
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:LENGTH]


def _refuse_unstable(value: Any, where: str) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FingerprintError(f"{where}: got {value}, expected a finite number.")
        return
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _refuse_unstable(item, f"{where}[{i}]")
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise FingerprintError(f"{where}: got the key {key!r}, expected a string.")
            _refuse_unstable(item, f"{where}.{key}")
        return
    raise FingerprintError(
        f"{where}: got a {type(value).__name__}, expected a plain JSON value. "
        "It has no text that is the same in every process."
    )
