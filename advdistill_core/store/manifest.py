"""The record of an artifact, sealed, and the reference that is passed around."""

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from advdistill_core import __version__
from advdistill_core.store import tables
from advdistill_core.store.fingerprint import canonical_json

Outcome = Literal["ran", "resumed", "cached"]


class Part(BaseModel):
    """One file of an artifact."""

    name: str
    rows: int | None
    size_bytes: int
    sha256: str
    stamp: str = Field(description="Modification stamp; a different one makes reuse compare sha256.")


class Manifest(BaseModel):
    """The record of an artifact; it exists if and only if the artifact is whole."""

    schema_version: str = tables.SCHEMA_VERSION
    stage: str
    stage_version: str
    fingerprint: str
    table: str | None
    rows: int
    parts: list[Part]
    inputs: dict[str, str]
    config: dict[str, Any]
    code_version: str = __version__
    outcome: Outcome
    started_at: float
    seconds: float
    tokens: dict[str, int]
    metrics: dict[str, Any]
    seal: str = Field("", description="sha256 of this file with an empty seal; none in older ones.")

    def to_file(self) -> bytes:
        """The manifest as it is written, sealed."""
        seal = hashlib.sha256(self._with_seal("")).hexdigest()
        return self._with_seal(seal)

    def _with_seal(self, seal: str) -> bytes:
        return self.model_copy(update={"seal": seal}).model_dump_json(indent=1).encode()

    @classmethod
    def of_file(cls, body: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            ValueError: it is torn or altered.
        """
        found = cls.model_validate_json(body)
        unsealed = body.replace(f'"seal": "{found.seal}"'.encode(), b'"seal": ""')
        if found.seal and hashlib.sha256(unsealed).hexdigest() != found.seal:
            raise ValueError("its seal does not fit")
        return found

    def content_hash(self, prefix: str = "") -> str:
        """Hash of the parts whose name starts with `prefix`; times and places play no role."""
        chosen = sorted((p.name, p.sha256) for p in self.parts if p.name.startswith(prefix))
        return hashlib.sha256(canonical_json([list(pair) for pair in chosen]).encode()).hexdigest()[:32]


class ArtifactRef(BaseModel):
    """A small JSON reference to an artifact; this is what tasks return."""

    model_config = ConfigDict(frozen=True)

    stage: str
    fingerprint: str
    uri: str
    rows: int
    content_hash: str
    outcome: Outcome = "ran"
    seconds: float = 0.0
