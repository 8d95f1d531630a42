"""One websocket: opened, listened to in a thread of its own, and given up when the other end is silent for too long."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from functools import partial
from typing import Callable, Optional, Union, cast

from ._vendor.underpaint_protocol.errors import ErrorInfo, describe, refusal_in
from ._vendor.underpaint_protocol.messages import MAX_FRAME, RESUMED_ELSEWHERE, REVOKED, SUBPROTOCOL
from ._vendor.websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from ._vendor.websockets.sync.client import ClientConnection, connect
from ._vendor.websockets.typing import Subprotocol
from .encryption import Encryption
from .trust import context_for, refusal

OPEN_TIMEOUT = 10.0
CLOSE_TIMEOUT = 1.0
SILENCE = 20.0
"""Seconds without a frame after which the other end is asked whether it is there, and that it has for its answer."""
FRAMES_AT_HAND = 16
"""Frames that wait for the network thread, at most; of tiles, 4 MiB with 8 bits a channel."""
SERVICE_RESTART = 1012
REASONS = {
    RESUMED_ELSEWHERE: "resumed_elsewhere",
    REVOKED: "unauthorized",
    SERVICE_RESTART: "shutting_down",
}
"""What close codes mean to an artist. Every other end is a lost connection."""


class Refused(Exception):
    """There is no connection. `error` says why."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


def open_websocket(server: str, token: str, pinned: Optional[str] = None) -> ClientConnection:
    """Connect to `server`, which must show the certificate `pinned` (a fingerprint) if there is one.

    Raises `Refused` if that is not possible, after `OPEN_TIMEOUT` at the latest. The token goes to nobody whose
    certificate is not trusted.
    """
    if not (token.isascii() and token.isprintable()):
        # A header cannot hold it, and a line break would begin another one.
        raise Refused(describe("unauthorized"))
    try:
        websocket = _connect(server, token, pinned)
    except InvalidStatus as error:
        raise Refused(refusal_in(error.response.body) or describe("unreachable", detail=server)) from None
    except (OSError, EOFError, ValueError, WebSocketException) as error:
        raise Refused(refusal(error, server) or describe("unreachable", detail=server)) from None
    if websocket.subprotocol != SUBPROTOCOL:
        websocket.close()
        raise Refused(describe("wrong_version"))
    return websocket


def _connect(server: str, token: str, pinned: Optional[str]) -> ClientConnection:
    context = context_for(server, pinned)
    return connect(
        server,
        ssl=cast(ssl.SSLContext, Encryption(context)) if context is not None else None,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        max_size=MAX_FRAME,
        open_timeout=OPEN_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
    )


class Connection:
    """An open websocket and the thread that listens to it. Its methods belong to the network thread."""

    def __init__(
        self,
        websocket: ClientConnection,
        post: Callable[[Callable[[], None]], None],
        received: Callable[[Connection, bytes], None],
        lost: Callable[[Connection, ErrorInfo], None],
    ) -> None:
        """`post` has something done in the network thread: `received` for each frame, and in the end `lost`."""
        self._websocket = websocket
        self._post = post
        self._received = received
        self._lost = lost
        self._room = threading.Semaphore(FRAMES_AT_HAND)
        self._pong: Optional[threading.Event] = None
        threading.Thread(target=self._listen, name="underpaint-listener", daemon=True).start()

    def send(self, frame: bytes) -> None:
        """Send one message. If that fails, `lost` is on its way."""
        with contextlib.suppress(OSError, WebSocketException):
            self._websocket.send(frame)

    def close(self) -> None:
        """Part from the other end; takes up to `CLOSE_TIMEOUT`. `lost` is still told."""
        self._websocket.close()

    def _ping(self) -> None:
        with contextlib.suppress(OSError, WebSocketException):
            self._pong = self._websocket.ping()

    def _hand_over(self, frame: bytes) -> None:
        self._room.release()
        self._received(self, frame)

    # What follows runs in the listening thread.

    def _listen(self) -> None:
        error = describe("disconnected")
        try:
            while self._hear():
                pass
            self._cut()
        except ConnectionClosed as closed:
            error = _reason(closed)
        except (OSError, WebSocketException):
            pass
        self._post(partial(self._lost, self, error))

    def _hear(self) -> bool:
        """Hand over the next frame; false if there is nobody at the other end."""
        try:
            frame = self._next_frame()
        except TimeoutError:
            return False
        # The network thread takes no frames while it sends to somebody who does not read.
        if not self._room.acquire(timeout=2 * SILENCE):
            return False
        self._post(partial(self._hand_over, frame if isinstance(frame, bytes) else frame.encode()))
        return True

    def _next_frame(self) -> Union[str, bytes]:
        """The next frame. Raises `TimeoutError` if neither a frame nor the answer to a ping comes for too long."""
        while True:
            with contextlib.suppress(TimeoutError):
                return self._websocket.recv(SILENCE)
            self._pong = None
            self._post(self._ping)
            with contextlib.suppress(TimeoutError):
                return self._websocket.recv(SILENCE)
            if self._pong is None or not self._pong.is_set():
                raise TimeoutError

    def _cut(self) -> None:
        """End the connection without a word. This also wakes a network thread that waits for it to take a frame."""
        with contextlib.suppress(OSError):
            self._websocket.socket.shutdown(socket.SHUT_RDWR)


def _reason(closed: ConnectionClosed) -> ErrorInfo:
    code = closed.rcvd.code if closed.rcvd is not None else 0
    return describe(REASONS.get(code, "disconnected"))
