"""The process of a Prefect server (3.7.7) that stays responsive on SQLite.

`python -m flows.server_process server start ...` is `prefect server start ...`, in the foreground,
with two amendments, which do not matter on PostgreSQL:

Garbage is collected on a thread of its own. Each of the server's connections works on its own
thread, which holds the connection's mutex as long as its statement waits for the database's lock,
up to 60 s. A statement that ended with an error is often left to the garbage collector, and to
finalise it takes that mutex. Python collects on whatever thread happens to allocate: if that is
the event loop's, the loop waits for the mutex, the transaction that holds the lock is one of its
coroutines and cannot go on, and the whole server is silent until SQLite gives up. Seen under load,
several times in a row. A thread that may wait breaks the circle.

A transaction takes the lock when it begins, rather than at its first write. There SQLite does not
wait but fails at once if another one writes ("database is locked"): some sixty tracebacks a minute
in the log of a server with two idle workers (PrefectHQ/prefect#23051 is one of the places).
"""

import gc
import threading
import time
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.server.database.configurations import AioSqliteConfiguration
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

_EVERY_S = 1.0
_FULL_EVERY = 60  # a full collection stops all Python threads for some tenths of a second


def collect_on_a_thread() -> None:
    """Let a thread of its own collect garbage, and no other thread."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    rounds = 0
    while True:
        time.sleep(_EVERY_S)
        rounds += 1
        gc.collect(2 if rounds % _FULL_EVERY == 0 else 1)


def take_the_lock_at_once() -> None:
    """Let each transaction of this process on SQLite begin with the lock."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def begin_with_lock(
        self: "AioSqliteConfiguration", session: "AsyncSession", with_for_update: bool = False
    ) -> "AbstractAsyncContextManager[AsyncSessionTransaction]":
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_with_lock  # type: ignore[assignment]


def main() -> None:
    """Run Prefect's command line."""
    collect_on_a_thread()
    take_the_lock_at_once()
    from prefect.cli import app

    app()


if __name__ == "__main__":
    main()
