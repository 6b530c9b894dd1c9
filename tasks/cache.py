"""Prefect's cache as an index of artifacts; the manifests stay the truth.

A task's cache key is its stage's fingerprint, so a hit means "the same result was asked
for before", on whichever run. The record is believed only while the artifact that it
names is whole: reading a record whose files are missing or altered raises, which Prefect
takes as "no record", and the task runs again.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.cache_policies import CachePolicy
from prefect.serializers import Serializer
from pydantic import ValidationError

from advdistill_core.config import DistillConfig
from advdistill_core.errors import ArtifactError
from advdistill_core.stages import STAGES, Stage, plan_stage
from advdistill_core.store import ArtifactRef, Store


@dataclass
class StagePolicy(CachePolicy):
    """The key of a stage: its fingerprint, and the root that the artifact lives under."""

    stage: str = ""

    def compute_key(
        self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        config: DistillConfig = inputs["config"]
        store = Store(config.storage.root)
        refs, params = split_arguments(inputs)
        plan = plan_stage(STAGES[self.stage], config, refs, store, params)
        root = hashlib.sha256(store.files.uri.encode()).hexdigest()[:12]
        key = f"{self.stage}-{plan.fingerprint}-{root}"
        if folder := result_folder(config):
            _forget_another(folder / key, plan.fingerprint)
        return key


class ReferenceSerializer(Serializer):
    """JSON references, read back only while their artifact is whole."""

    type: Literal["advdistill-reference"] = "advdistill-reference"

    def dumps(self, obj: Any) -> bytes:
        if isinstance(obj, BaseException):  # Prefect keeps the error of a failed task, too;
            return json.dumps({"error": repr(obj)}).encode()  # to be read by people only
        return ArtifactRef.model_validate(obj).model_dump_json().encode()

    def loads(self, blob: bytes) -> ArtifactRef:
        """Read a reference.

        Raises:
            ArtifactError: its artifact is missing or altered, or it is an error's record.
        """
        try:
            ref = ArtifactRef.model_validate_json(blob)
        except ValidationError as error:
            raise ArtifactError(f"record: got {blob[:200]!r}, expected a reference.") from error
        root = ref.uri.removesuffix(f"/{ref.stage}/{ref.fingerprint}")
        found = Store(root).find(ref.stage, ref.fingerprint)
        if found is None:
            raise ArtifactError(f"artifact {ref.uri}: got missing or altered files, expected a whole one.")
        return found


def _forget_another(record: Path, fingerprint: str) -> None:
    """Remove the record of an artifact with another fingerprint than its key stands for.

    A stage in a process of its own works its fingerprint out again. Where a package was
    installed since the flow began, that is another one, and the record names what the flow
    did not ask for.
    """
    try:
        named = json.loads(json.loads(record.read_bytes())["result"])["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):  # none, torn, or an error's
        return
    if named != fingerprint:
        record.unlink(missing_ok=True)


def split_arguments(arguments: dict[str, Any]) -> tuple[dict[str, ArtifactRef], dict[str, Any]]:
    """Tell a task's input references from its variant parameters.

    A mapping of references, such as `scores`, becomes one input for each: `scores/NAME`.
    """
    refs: dict[str, ArtifactRef] = {}
    params: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, ArtifactRef):
            refs[name] = value
        elif isinstance(value, dict) and all(isinstance(ref, ArtifactRef) for ref in value.values()):
            refs |= {f"{name}/{key}": ref for key, ref in value.items()}
        elif name != "config" and value is not None:
            params[name] = value
    return refs, params


def cached(stage: Stage) -> dict[str, Any]:
    """The options of a task that stands for a stage."""
    return {
        "name": stage.name,
        "cache_policy": StagePolicy(stage=stage.name),
        "result_serializer": ReferenceSerializer(),
        "persist_result": True,
    }


def result_folder(config: DistillConfig) -> Path | None:
    """Where Prefect keeps its records: beside the artifacts, so that they travel together."""
    files = Store(config.storage.root).files
    return files.local_folder(".records") if files.is_local else None
