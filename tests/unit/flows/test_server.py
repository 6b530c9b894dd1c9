"""The local Prefect server: its address from one start to the next, and whose answer counts."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from advdistill_core.errors import StageError
from flows import server as module
from flows.server import LocalServer

_SLEEPING = "import sys, time; time.sleep(float(sys.argv[1]))"


@contextmanager
def taken(port: int = 0) -> Iterator[int]:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((module.HOST, port))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ports of servers that were started; in their place something sleeps, named as one."""
    ports: list[int] = []
    processes = []

    def spawn(self: LocalServer, port: int, tied: bool, claim: socket.socket) -> int:
        ports.append(port)
        command = [sys.executable, "-c", _SLEEPING, "60", "prefect"]
        processes.append(subprocess.Popen(command, pass_fds=(claim.fileno(),), start_new_session=True))
        return processes[-1].pid

    monkeypatch.setattr(LocalServer, "_spawn", spawn)
    yield ports
    for process in processes:
        process.kill()
        process.wait()


def end(server: LocalServer, port: int) -> None:
    """Stop a server and wait until all that it held is free, which is a moment later."""
    threading.Thread(target=server.stop).start()
    while (claim := module._claim(port)) is None:
        time.sleep(0.01)
    claim.close()


def test_a_server_is_started_again_on_its_port(tmp_path: Path, spawned: list[int]) -> None:
    with taken() as first:
        pass
    (tmp_path / "server.port").write_text(str(first))
    for _ in range(2):
        server = LocalServer(tmp_path)
        assert server.start() == f"http://127.0.0.1:{first}/api"
        assert server.last_port is None
        end(server, first)
    with taken(first):
        moved = LocalServer(tmp_path)
        other = moved.start()
    assert moved.last_port == first, "who has it in a bookmark is told"
    assert spawned[-1] != first
    end(LocalServer(tmp_path), spawned[-1])
    assert LocalServer(tmp_path).start() == other, "that is the address that was shown last"


@pytest.mark.parametrize("written", ["", "no number", "99999999", "-1"])
def test_a_port_that_cannot_be_used_is_passed_over(tmp_path: Path, spawned: list[int], written: str) -> None:
    (tmp_path / "server.port").write_text(written)
    LocalServer(tmp_path).start()
    assert 1024 < spawned[0] < 65536


def test_the_next_port_is_taken_where_the_first_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with taken() as first:
        monkeypatch.setattr(module, "PREFERRED_PORT", first)
        port, claim = module._free_port()
        claim.close()
        assert first < port < first + 100


def test_servers_that_start_at_once_do_not_choose_the_same_port(tmp_path: Path, spawned: list[int]) -> None:
    """None of them listens yet when the others look."""
    homes = [tmp_path / str(number) for number in range(4)]
    starting = [threading.Thread(target=LocalServer(home).start) for home in homes]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert len(set(spawned)) == 4
    server = LocalServer(homes[0])
    end(server, int(server.port.read_text()))
    LocalServer(homes[0]).start()
    assert len(set(spawned)) == 4, "the claim ended with its server"


def test_a_port_with_connections_of_a_server_that_ended_is_free() -> None:
    """They stay for a minute after the end."""
    with taken() as port:
        pass
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((module.HOST, port))
        listening.listen()
        with socket.create_connection((module.HOST, port)) as client:
            listening.accept()[0].close()  # the server's side first, as at its end
            assert client.recv(1) == b""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind((module.HOST, port))
    found, claim = module._free_port(port)
    claim.close()
    assert found == port


@contextmanager
def answering(home: str) -> Iterator[str]:
    """A Prefect server of some home."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"home": home} if self.path == "/api/admin/settings" else True).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer((module.HOST, 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://{module.HOST}:{http.server_port}/api"
        http.shutdown()


def waiting(folder: Path, url: str, lives_s: float) -> LocalServer:
    """A server that was started for an address."""
    server = LocalServer(folder)
    process = subprocess.Popen([sys.executable, "-c", _SLEEPING, str(lives_s), "prefect"])
    threading.Thread(target=process.wait, daemon=True).start()
    server.record.write_text(json.dumps({"pid": process.pid, "api_url": url}))
    server.api_url = url
    return server


def test_the_answer_of_the_own_server_counts(tmp_path: Path) -> None:
    """By whichever name of the folder it was started."""
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    with answering(str(tmp_path / "home" / "prefect")) as url:
        for name in ("home", "link"):
            waiting(tmp_path / name, url, 2.0).wait()


def test_another_server_on_the_chosen_port_is_not_used(tmp_path: Path) -> None:
    """Two homes that start at once may choose the same port: the second server ends."""
    with answering("/home/another/prefect") as url:
        server = waiting(tmp_path, url, 1.0)
        with pytest.raises(StageError, match=r"another one took http://.* meanwhile; try again"):
            server.wait()


def test_what_the_server_writes_lies_in_the_home(tmp_path: Path) -> None:
    """Without these Prefect writes into ~/.prefect, also where PREFECT_HOME is elsewhere."""
    script = (
        "from prefect.settings import get_current_settings as s; "
        "print(s().home, s().server.memo_store_path, s().results.local_storage_path)"
    )
    environment = {"HOME": str(tmp_path / "user"), "PATH": "", **LocalServer(tmp_path).environment()}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert all(path.startswith(f"{tmp_path}/prefect") for path in done.stdout.split()), done.stdout
    assert not (tmp_path / "user").exists()


def test_where_a_user_says_where_prefect_writes_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LOCAL_STORAGE_PATH", "/data/results")
    found = LocalServer(tmp_path).environment()
    assert found["PREFECT_LOCAL_STORAGE_PATH"] == "/data/results"
    assert found["PREFECT_SERVER_MEMO_STORE_PATH"] == f"{tmp_path}/prefect/memo_store.toml"
