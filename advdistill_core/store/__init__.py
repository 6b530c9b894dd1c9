"""The artifact store: fingerprints, tables, manifests."""

from advdistill_core.store.artifacts import Artifact, ArtifactWriter, Store
from advdistill_core.store.fingerprint import canonical_json, fingerprint
from advdistill_core.store.manifest import ArtifactRef, Manifest

__all__ = [
    "Artifact",
    "ArtifactRef",
    "ArtifactWriter",
    "Manifest",
    "Store",
    "canonical_json",
    "fingerprint",
]
