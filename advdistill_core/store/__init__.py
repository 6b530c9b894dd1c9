"""The artifact store: fingerprints, tables, manifests."""

from advdistill_core.store.artifacts import Artifact, ArtifactRef, ArtifactWriter, Manifest, Store
from advdistill_core.store.fingerprint import canonical_json, fingerprint

__all__ = [
    "Artifact",
    "ArtifactRef",
    "ArtifactWriter",
    "Manifest",
    "Store",
    "canonical_json",
    "fingerprint",
]
