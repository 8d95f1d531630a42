"""The line to one server: opened, and opened again whenever it breaks, for as long as that is of any use.

Belongs to the network thread, which asks it to `dial` when `remaining` has passed.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Callable, Optional, Protocol, Union

from . import daemon
from ._vendor.underpaint_protocol.errors import ErrorInfo, describe
from .certificates import Certificate
from .connection import OPEN_TIMEOUT, Connection, Refused, open_websocket
from .events import Disconnected, Reconnecting
from .redial import Redial
from .trust import probe

START_INTERVAL = 0.25
"""Seconds between attempts to reach a daemon that is being started."""


@dataclass(frozen=True)
class Target:
    """Where to connect, with the token that `read_token` gives then and the certificate `pinned`, if there is one."""

    server: str
    read_token: Callable[[], str]
    pinned: Optional[str] = None


class Talker(Protocol):
    """Who speaks over the line."""

    @property
    def waiting(self) -> bool:
        """Whether anything is under way for which a line is needed."""

    def opened(self) -> None:
        """There is a line."""

    def received(self, frame: bytes) -> None:
        """A frame came."""

    def broken(self) -> None:
        """There is no line any more."""


class Line:
    """At most one connection. What goes wrong with it is told as `Reconnecting`, in the end as `Disconnected`."""

    def __init__(
        self,
        talker: Talker,
        later: Callable[[Callable[[], None]], None],
        tell: Callable[[Union[Reconnecting, Disconnected]], None],
    ) -> None:
        """`later`, which any thread may call, has something done in the network thread."""
        self._talker = talker
        self._later = later
        self._tell = tell
        self._target: Optional[Target] = None
        self._connection: Optional[Connection] = None
        self._redial = Redial()
        self._starting: Optional[daemon.Starting] = None
        self.started: Optional[subprocess.Popen[bytes]] = None
        """The daemon, if it was started from here. Kept so that Python looks after its end."""

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def remaining(self) -> Optional[float]:
        """Seconds until it should be dialled again; None if it should not."""
        return self._redial.remaining

    def connect(self, target: Target) -> None:
        """Connect to `target`."""
        self._aim(target)
        self.dial()

    def start_daemon(self, target: Target) -> None:
        """Connect to `target`, and start a daemon there, which is this machine, if nobody answers."""
        self._aim(target)
        try:
            self._open(target)
        except Refused as refused:
            if refused.error.code == "unreachable":
                self._launch(target.server)
            else:
                self._not_connected(refused.error)

    def dial(self) -> None:
        """Try to connect now."""
        if self._target is not None:
            try:
                self._open(self._target)
            except Refused as refused:
                self._not_connected(refused.error)

    def need(self) -> None:
        """There is something to say: if there is no connection and none is tried for, try now."""
        if not self.is_open and self.remaining is None:
            self.dial()

    def send(self, frame: bytes) -> None:
        """Send a frame, if there is a connection."""
        if self._connection is not None:
            self._connection.send(frame)

    def drop(self, error: ErrorInfo) -> None:
        """The connection is of no use because of `error`; another one may be."""
        self.hang_up()
        self._redial.lost()
        self._not_connected(error)

    def give_up(self, error: ErrorInfo) -> None:
        """Leave, because of `error`, and do not try again."""
        self.hang_up()
        self._redial.stop()
        self._starting = None
        self._tell(Disconnected(error, self._certificate() if error.code == "unknown_certificate" else None))

    def hang_up(self) -> None:
        """Leave the connection that there is, without a word to the artist."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._talker.broken()
            connection.close()

    def _aim(self, target: Target) -> None:
        self.hang_up()
        self._redial.begin()
        self._target, self._starting = target, None

    def _open(self, target: Target) -> None:
        self._redial.stop()
        websocket = open_websocket(target.server, target.read_token(), target.pinned)
        self._starting = None
        self._redial.connected()
        self._talker.opened()
        self._connection = Connection(websocket, self._later, self._received, self._lost)

    def _received(self, connection: Connection, frame: bytes) -> None:
        if connection is self._connection:
            self._talker.received(frame)

    def _lost(self, connection: Connection, error: ErrorInfo) -> None:
        if connection is self._connection:
            self.drop(error)

    def _not_connected(self, error: ErrorInfo) -> None:
        if self._starting is not None and error.code == "unreachable":
            self._await_daemon(self._starting)
            return
        seconds = self._redial.again(self._talker.waiting) if error.retryable else None
        if seconds is None:
            self.give_up(error)
        else:
            self._tell(Reconnecting(error, seconds))

    def _launch(self, server: str) -> None:
        command = daemon.launch_command()
        if command is None:
            self.give_up(describe("not_installed"))
            return
        try:
            self._starting = daemon.start(daemon.at_port_of(server, command))
        except OSError as error:
            self.give_up(describe("not_started", detail=error))
        else:
            self.started = self._starting.process
            self._await_daemon(self._starting)

    def _await_daemon(self, starting: daemon.Starting) -> None:
        problem = starting.problem
        if problem is None:
            self._redial.after(START_INTERVAL)
        else:
            self.give_up(problem)

    def _certificate(self) -> Optional[Certificate]:
        """What the server shows; nothing if it does not show it again."""
        try:
            return probe(self._target.server, OPEN_TIMEOUT) if self._target is not None else None
        except (OSError, ValueError):
            return None
