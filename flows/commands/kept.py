"""Parameters of a deployment that somebody changed on the server: they stay when it is registered again."""

import hashlib
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.responses import DeploymentResponse

from advdistill_core import __version__
from advdistill_core.store.fingerprint import canonical_json
from flows.deployments import Deployment


def mark(parameters: Mapping[str, Any]) -> str:
    """A deployment's version: the package's, and a hash of the parameters that it registers.

    A deployment whose parameters have another hash was changed since.
    """
    digest = hashlib.sha256(canonical_json(dict(parameters)).encode()).hexdigest()
    return f"{__version__}-{digest[:12]}"


def parameters(deployment: Deployment, known: DeploymentResponse | None) -> tuple[dict[str, Any], str]:
    """What to register, and a line on it for people, if there is something to say.

    Of changed parameters only the placement and the root follow the package and the command:
    all workers share a root.

    Args:
        known: the deployment as it is on the server.
    """
    ours = dict(deployment.parameters)
    if known is None or not _was_changed(known):
        return ours, ""
    name = f"{deployment.flow}/{deployment.name}"
    merged = {**known.parameters, **_merged(ours, known.parameters)}
    said = f"The parameters of {name}, which were changed on the server, stay."
    if isinstance(config := merged.get("config"), Mapping) and isinstance(config["storage"], Mapping):
        placement, root = ours["config"]["placement"], ours["config"]["storage"]["root"]
        before, storage = config["storage"]["root"], {**config["storage"], "root": root}
        merged["config"] = {**config, "storage": storage, "placement": placement}
        if before != root:
            said += f" But storage.root, which was {before}, is that of all workers now: {root}."
    return merged, said


def _was_changed(known: DeploymentResponse) -> bool:
    """Whether the parameters are not those that were registered; of older deployments nobody knows."""
    registered = (known.version or "").rpartition("-")[2]
    return len(registered) == 12 and registered != mark(known.parameters).rpartition("-")[2]


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Their values of the settings that there are; a setting that is new has ours."""
    return {
        name: _merged(value, theirs[name])
        if value and isinstance(value, Mapping) and isinstance(theirs.get(name), Mapping)
        else theirs.get(name, value)
        for name, value in ours.items()
    }
