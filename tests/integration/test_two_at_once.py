"""Two runs at once on one root, on SQLite and on PostgreSQL: each artifact is made once."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from server_fixture import Cli, running_server

pytestmark = [pytest.mark.server, pytest.mark.slow]


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The address of a PostgreSQL cluster that ends with the block."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("there is no PostgreSQL here")
    as_person: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        as_person = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, options = folder / "data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*as_person, "initdb", "-D", data, "-U", "prefect", "--auth=trust"], **quiet)
    control = [*as_person, "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "-l", folder / "log", "start"], **quiet)
    try:
        subprocess.run(
            ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "-d", "postgres"],
            input="create database prefect;",
            text=True,
            **quiet,
        )
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)


@pytest.fixture(params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cli]:
    home = tmp_path_factory.mktemp("home")
    if request.param == "sqlite":
        yield request.getfixturevalue("cli")
        return
    folder = Path(tempfile.gettempdir()) / f"advdistill-postgres-{os.getpid()}"  # nobody may enter it
    folder.mkdir()
    try:
        with postgres(folder) as address:
            monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", address)
            with running_server(home) as cli:
                yield cli
                assert not list((home / "prefect").glob("*.db")), "it is the database of the setting"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_each_artifact_is_made_once(server: Cli, tmp_path: Path) -> None:
    running = [server.start("run", "smoke", "--root", str(tmp_path), "--json") for _ in range(2)]
    ended = [process.communicate(timeout=500) for process in running]
    assert [process.returncode for process in running] == [0, 0], [err[-2000:] for _, err in ended]
    summaries = [json.loads(out.strip().splitlines()[-1]) for out, _ in ended]
    made: dict[str, list[str]] = {}
    for summary in summaries:
        for stage in summary["stages"].values():
            made.setdefault(stage["uri"], []).append(stage["outcome"])
    assert len(made) == len(summaries[0]["stages"])
    for uri, outcomes in made.items():
        assert Counter(outcomes) == {"ran": 1, "cached": 1}, uri
