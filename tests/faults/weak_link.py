"""A way to a server that can be cut: connections are refused, or taken and never answered."""

import contextlib
import select
import socket
import threading
import time
from types import TracebackType


class WeakLink:
    """Forwards a port of its own to another one on loopback.

    Args:
        target: the port of the server.
    """

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self._mute = self._ended = False
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def __enter__(self) -> "WeakLink":
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._close()

    def cut(self, seconds: float, refuse: bool) -> None:
        """Be unreachable for a while.

        Args:
            refuse: connections are refused; else they are taken and nothing is heard.
        """
        if refuse:
            self._close()
        self._mute = True
        time.sleep(seconds)
        self._mute = False
        if refuse:
            self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _close(self) -> None:
        for one in [self._listener, *self._open]:
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self.target)) as far,
        ):
            self._open |= {client, far}
            try:
                while not self._ended:
                    for ready in select.select([client, far], [], [], 0.2)[0]:
                        while self._mute:
                            time.sleep(0.1)
                        data = ready.recv(1 << 16)
                        if not data:
                            return
                        (far if ready is client else client).sendall(data)
            finally:
                self._open -= {client, far}
