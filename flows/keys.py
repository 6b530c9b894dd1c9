"""Keys of endpoints that are kept on the Prefect server, as Secret blocks.

A key that is not in the environment variable of `teacher.api_key_env` is looked for in the
block of that name: that of TEACHER_KEY is `teacher-key`. It goes from there into this
process's environment, which its children inherit; nothing writes it down.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from advdistill_core.config import TeacherConfig
from flows.server import LocalServer, client_of

_LIMIT_S = 10.0


def fetch(config: TeacherConfig) -> None:
    """Put the teachers' keys that are missing into the environment, where the server has them.

    A key that is nowhere is no error here; the check of the teacher tells of it.
    """
    names = {config.api_key_env, *(further.api_key_env for further in config.mixture)}
    missing = [name for name in sorted(names) if name and not os.environ.get(name)]
    if not missing:
        return
    with _server() as client:
        for name in missing:
            value = _read(client, block_name(name)) if client else ""
            if value:
                os.environ[name] = value


def block_name(variable: str) -> str:
    """The name of the block that stands for a variable; Prefect takes a-z, 0-9 and dashes."""
    return variable.lower().replace("_", "-")


@contextmanager
def _server() -> Iterator[httpx.Client | None]:
    """The server that is named, or the one that runs on this machine, or None."""
    local = LocalServer()
    url = os.environ.get("PREFECT_API_URL") or (local.address() if local.running() else "")
    if not url:
        yield None
        return
    with client_of(url, _LIMIT_S) as client:
        yield client


def _read(client: httpx.Client, name: str) -> str:
    """The value of a Secret block; empty when there is none."""
    path = f"/block_types/slug/secret/block_documents/name/{name}"
    try:
        answer = client.get(path, params={"include_secrets": True})
        value = answer.raise_for_status().json()["data"]["value"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""
