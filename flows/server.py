"""A Prefect server on this machine: found, or started and left running to be looked at.

The server that Prefect embeds in a flow's process loses records when the process ends, so
local runs use a real one. `PREFECT_API_URL` in the environment picks another.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
from pydantic import BaseModel

from advdistill_core.errors import InputError, StageError
from advdistill_core.home import home
from advdistill_core.store.locks import file_lock

HOST = "127.0.0.1"
PREFERRED_PORT = 4200
_PORTS = 100  # further ones that are tried before any free one
#: A run whose heartbeats stop for three times this is taken for dead.
HEARTBEAT_S = 30
_START_TIMEOUT_S = 180.0


class _ServerRecord(BaseModel):
    pid: int
    api_url: str


class LocalServer:
    """The server of this machine's home folder.

    `start` returns at once, so that slow imports can go on meanwhile; `wait` returns when
    the server answers.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.home = folder or home()
        self.record = self.home / "server.json"
        self.api_url = ""
        self.started = False
        self.last_port: int | None = None  # if it could not be had again

    def start(self, tied: bool = False) -> str:
        """Find the running server or start one; returns the address of its API.

        Args:
            tied: a server started here dies with this process, rather than staying.
        """
        with file_lock(self.home / "server.lock"):
            record = self._read_record()
            if record and _alive(record.pid):
                self.api_url = record.api_url
                return self.api_url
            last = self._last_port()
            port, claim = _free_port(last)
            self.last_port = last if last != port else None
            with claim:
                self.api_url = f"http://{HOST}:{port}/api"
                pid = self._spawn(port, tied, claim)
            record = _ServerRecord(pid=pid, api_url=self.api_url)
            self.record.write_text(record.model_dump_json(), encoding="utf-8")
            self.port.write_text(str(port), encoding="ascii")
            self.started = True
        return self.api_url

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            StageError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            answers = healthy(self.api_url)
            if answers and self._is_ours():
                return
            record = self._read_record()
            if record is None or not _alive(record.pid):
                why = f"another one took {self.api_url} meanwhile; try again" if answers else "it ended"
                raise StageError(f"Prefect server: not started, {why}. Its log is {self.log}.")
            time.sleep(0.2)
        raise StageError(f"Prefect server: no answer from {self.api_url} in {_START_TIMEOUT_S:.0f} s.")

    def stop(self) -> bool:
        """End the server; returns whether one was running."""
        with file_lock(self.home / "server.lock"):
            record = self._read_record()
            self.record.unlink(missing_ok=True)
            if not record or not _alive(record.pid):
                return False
            os.killpg(record.pid, signal.SIGTERM)
            for _ in range(100):
                if not _alive(record.pid):
                    return True
                time.sleep(0.1)
            os.killpg(record.pid, signal.SIGKILL)
            return True

    def _is_ours(self) -> bool:
        """Whether what answers is this server: two that start at once may choose the same port."""
        try:
            with client_of(self.api_url, 2.0) as client:
                answer = client.get("/admin/settings")
            if answer.status_code == 401:  # its login is not known here, and nothing of it is told
                return True
            return answer.is_success and Path(answer.json()["home"]).resolve() == self.prefect_home.resolve()
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False

    def running(self) -> bool:
        """Whether the recorded server is a living process."""
        record = self._read_record()
        return record is not None and _alive(record.pid)

    def address(self) -> str:
        """The address of the recorded server's API; empty without one."""
        record = self._read_record()
        return record.api_url if record else ""

    @property
    def prefect_home(self) -> Path:
        return self.home / "prefect"

    @property
    def port(self) -> Path:
        """The file with the port that was used last, so that an address in a bookmark stays right."""
        return self.home / "server.port"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api") + "/v2/runs"

    def environment(self) -> dict[str, str]:
        """Settings of the server and of clients that are to use it."""
        return {
            "PREFECT_HOME": str(self.prefect_home),
            **self._paths(),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        }

    def _paths(self) -> dict[str, str]:
        """What Prefect 3.7.7 puts into ~/.prefect, whatever its home is, unless the user says where."""
        ours = {"SERVER_MEMO_STORE_PATH": "memo_store.toml", "LOCAL_STORAGE_PATH": "storage"}
        names = {f"PREFECT_{name}": str(self.prefect_home / file) for name, file in ours.items()}
        return {name: os.environ.get(name, path) for name, path in names.items()}

    def _spawn(self, port: int, tied: bool, claim: socket.socket) -> int:
        environment = {**os.environ, **self.environment()}
        environment.pop("PREFECT_API_URL", None)  # the UI would show the server of that address,
        environment["PREFECT_SERVER_UI_API_URL"] = f"http://{HOST}:{port}/api"  # or of port 4200
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    *(["flows.tied", str(os.getpid())] if tied else []),
                    "flows.server_process",
                    *["server", "start", "--host", HOST, "--port", str(port)],
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=(claim.fileno(),),  # it holds its claim as long as it lives
                start_new_session=True,
            )
        return process.pid

    def _last_port(self) -> int | None:
        try:
            return int(self.port.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _read_record(self) -> "_ServerRecord | None":
        try:
            return _ServerRecord.model_validate_json(self.record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None


def connect(environment: Mapping[str, str] = os.environ) -> LocalServer | None:
    """Point this process at a Prefect server; call it before Prefect is imported.

    Returns:
        The local server, which may still be starting, or None if `PREFECT_API_URL` names
        a server that answers.

    Raises:
        InputError: `PREFECT_API_URL` is set and nothing answers there.
    """
    if check_named(environment):
        return None
    server = LocalServer()
    os.environ["PREFECT_API_URL"] = server.start()
    os.environ.update(server.environment())
    return server


def check_named(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `PREFECT_API_URL` names a server, which then must answer.

    Raises:
        InputError: nothing answers there.
    """
    url = environment.get("PREFECT_API_URL")
    if url and not healthy(url, timeout_s=10.0):
        raise InputError(
            "PREFECT_API_URL", url, "a Prefect server that answers", "Start it, or unset the variable."
        )
    return bool(url)


def client_of(api_url: str, timeout_s: float) -> httpx.Client:
    """A client of a server, with the login that Prefect's own variables name."""
    headers, auth = {}, None
    if key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        user, _, password = login.partition(":")
        auth = httpx.BasicAuth(user, password)
    return httpx.Client(base_url=api_url, headers=headers, auth=auth, timeout=timeout_s)


def healthy(api_url: str, timeout_s: float = 2.0) -> bool:
    """Whether a Prefect API answers."""
    try:
        return httpx.get(f"{api_url.rstrip('/')}/health", timeout=timeout_s).status_code in (200, 401)
    except httpx.HTTPError:
        return False


def _free_port(last: int | None = None) -> tuple[int, socket.socket]:
    """The port that was used last, if nobody has it now, else the first free one, with a claim.

    A server listens only seconds after it was started. Until then its claim tells others of
    this machine that the port is taken.
    """
    first = [] if last is None else [last]
    for port in (*first, *range(PREFERRED_PORT, PREFERRED_PORT + _PORTS), 0):
        claim = _claim(port)
        if claim is None:
            continue
        with socket.socket() as probe:
            # As the server does: connections of one that ended a moment ago are no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):  # taken, or no port at all
                claim.close()
                continue
            return int(probe.getsockname()[1]), claim
    raise StageError(f"Prefect server: no free port on {HOST}.")


def _claim(port: int) -> socket.socket | None:
    """A name that one process of a machine can have, until the last that holds it ends; or None."""
    claim = socket.socket(socket.AF_UNIX)
    if port:  # of the ports that the system picks none is picked twice
        try:
            claim.bind(f"\0advdistill-port-{port}")
        except OSError:
            claim.close()
            return None
    return claim


def _alive(pid: int) -> bool:
    """Whether a process is a running Prefect server (a number may be reused, or a zombie)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # One that an older version of this package started is called prefect; a zombie has no command line.
    return b"flows.server_process" in command or b"prefect" in command
