"""TLS that one thread may read while another one writes.

OpenSSL stands no two calls on one connection at once. Python keeps them apart in some of its versions only, and in
one so that a reader who waits keeps every writer out; without that, one connection in a hundred lost its first
words here. So each call is made under a lock and never waits; what waits is `select`, without the lock.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from typing import Any, Callable, Optional, TypeVar, Union

R = TypeVar("R")


class Encryption:
    """What `websockets` needs of an `ssl.SSLContext`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> EncryptedSocket:
        """Encrypt a socket; the handshake takes no longer than its timeout. Raises `ssl.SSLError` if it fails."""
        return EncryptedSocket(self._context.wrap_socket(plain, server_hostname=server_hostname))


class EncryptedSocket:
    """What `websockets` needs of a socket. One thread may read while one writes, and any may shut it down."""

    def __init__(self, encrypted: ssl.SSLSocket) -> None:
        encrypted.setblocking(False)
        self._encrypted = encrypted
        self._lock = threading.Lock()
        self._timeout: Optional[float] = None
        self._waiting = 0
        self._closed = False

    def settimeout(self, timeout: Optional[float]) -> None:
        """Wait at most so many seconds; None waits for ever."""
        self._timeout = timeout

    def recv(self, size: int) -> bytes:
        """At most `size` bytes; none at the end. Raises `TimeoutError`."""
        return self._repeat(lambda: self._encrypted.recv(size))

    def sendall(self, data: Union[bytes, bytearray, memoryview]) -> None:
        """Send all of `data`. Raises `TimeoutError`."""
        left = memoryview(data)
        while left:
            left = left[self._send(left) :]

    def shutdown(self, how: int) -> None:
        """Shut the line down, which wakes whoever waits for it."""
        # Not the method of the encrypted socket: it lets go of the encryption first, and what another thread is sending
        # at this moment would go out in the clear.
        socket.socket.shutdown(self._encrypted, how)

    def close(self) -> None:
        """Close the socket; whoever waits for it is woken."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._closed = True
            self._let_go()

    def getsockname(self) -> Any:
        """This end's address."""
        return self._encrypted.getsockname()

    def getpeername(self) -> Any:
        """The other end's address."""
        return self._encrypted.getpeername()

    def _send(self, data: memoryview) -> int:
        return self._repeat(lambda: self._encrypted.send(data))

    def _repeat(self, call: Callable[[], R]) -> R:
        """Make a call again and again until it need not wait for the line."""
        while True:
            with self._lock:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    event = selectors.EVENT_READ
                except ssl.SSLWantWriteError:
                    event = selectors.EVENT_WRITE
            self._wait(event)

    def _wait(self, event: int) -> None:
        with self._lock:
            if self._closed:
                raise OSError("the socket is closed")
            self._waiting += 1
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._encrypted, event)
                if not selector.select(self._timeout):
                    raise TimeoutError("timed out")
        finally:
            with self._lock:
                self._waiting -= 1
                self._let_go()

    def _let_go(self) -> None:
        """Close the socket once nobody waits for it: one that is closed under a waiter wakes nobody, for ever."""
        if self._closed and not self._waiting:
            self._encrypted.close()
