"""A TCP proxy on loopback that counts what crosses it: what a program says about its own bytes proves little."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

CHUNK = 1 << 20


class CountingProxy:
    """Passes on bytes in threads of its own. `up` are those from the clients, `down` those to them."""

    def __init__(self, url: str) -> None:
        """`url` is that of the daemon."""
        place = urlsplit(url)
        assert place.hostname is not None
        assert place.port is not None
        self.up = self.down = 0
        self._target = place.hostname, place.port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._door.getsockname()[1]}"
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> CountingProxy:
        threading.Thread(target=self._welcome, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._door, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    @property
    def total(self) -> int:
        """Bytes both ways."""
        return self.up + self.down

    def _welcome(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(self._target)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                threading.Thread(target=self._pass_on, args=(client, server, "up"), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, "down"), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        buffer = memoryview(bytearray(CHUNK))
        with contextlib.suppress(OSError):
            while count := source.recv_into(buffer):
                setattr(self, way, getattr(self, way) + count)
                sink.sendall(buffer[:count])
            sink.shutdown(socket.SHUT_WR)
