"""A statement left to the garbage collector does not make the event loop wait for a database."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# One connection waits for the lock that the main thread holds and will give back in a moment.
# Meanwhile a statement of the waiting connection becomes garbage, and the main thread allocates.
CIRCLE = textwrap.dedent(
    """
    import gc, sqlite3, sys, threading, time
    from flows import server_process

    path, elsewhere = sys.argv[1], sys.argv[2] == "elsewhere"
    connect = lambda: sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=4.0)
    holder, waiter = connect(), connect()
    holder.execute("PRAGMA journal_mode = WAL")
    holder.execute("CREATE TABLE rows (value)")
    holder.execute("BEGIN IMMEDIATE")
    if elsewhere:
        server_process.collect_on_a_thread()

    left = waiter.execute("SELECT 1 UNION SELECT 2")  # not at its end, and without a lock

    def write():
        try:
            waiter.execute("UPDATE rows SET value = 0")
            print("written")
        except sqlite3.OperationalError as error:
            print(error)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.5)
    cycle = [left]
    cycle.append(cycle)
    del cycle, left
    start = time.monotonic()
    kept = []
    while time.monotonic() - start < 2.5:
        kept.append([])  # what makes the collector run on this thread
        if len(kept) % 1000 == 0:
            time.sleep(0.001)
    holder.execute("COMMIT")
    thread.join()
    """
)


@pytest.mark.parametrize(("collector", "end"), [("elsewhere", "written"), ("anywhere", "database is locked")])
def test_the_thread_that_holds_the_lock_gets_on(tmp_path: Path, collector: str, end: str) -> None:
    command = [sys.executable, "-c", CIRCLE, str(tmp_path / "db"), collector]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[0] == end, done.stderr


def test_it_is_prefects_command_line() -> None:
    command = [sys.executable, "-m", "flows.server_process", "server", "start", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--host" in done.stdout
