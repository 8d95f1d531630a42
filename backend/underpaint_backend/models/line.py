"""A connection that another thread can cut: the one that says stop. Nobody waits for one that does not come about."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import Future, wait
from http.client import HTTPConnection
from threading import Event, Lock, Thread

from .exceptions import DownloadCancelled

PATIENCE = 0.02
"""Seconds after which somebody who said stop is heard."""


class Line:
    """One connection at a time, which another thread can cut: the one that says stop."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket: socket.socket | None = None

    def use(self, connection: socket.socket | None) -> None:
        """From now on `cut` cuts this one."""
        with self._lock:
            self._socket = connection

    def cut(self) -> None:
        """Whoever reads from the connection gets an error, or the end, at once."""
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cut_when(cancelled: Event, line: Line) -> Iterator[None]:
    """Cut `line` as soon as the event is set, while this holds."""
    over = Event()

    def watch() -> None:
        while not over.is_set():
            if cancelled.wait(PATIENCE):
                line.cut()
                over.wait(PATIENCE)  # and again: the next connection may be on its way already

    watcher = Thread(target=watch, name="download-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def connect(connection: HTTPConnection, cancelled: Event) -> None:
    """Connect, in a thread that is left to itself if the event is set: names, proxies and TLS may take their time.

    Raises `OSError`, and `DownloadCancelled`.
    """
    attempt: Future[None] = Future()

    def run() -> None:
        try:
            connection.connect()
        except BaseException as error:
            attempt.set_exception(error)
        else:
            attempt.set_result(None)

    Thread(target=run, name="download-connect", daemon=True).start()
    while not cancelled.is_set() and not wait([attempt], timeout=PATIENCE).done:
        pass
    if cancelled.is_set():
        attempt.add_done_callback(lambda _: connection.close())
        raise DownloadCancelled
    attempt.result()
