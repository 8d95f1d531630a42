"""The plugin's end of the wire, in a thread of its own. Knows nothing of Qt or Krita.

One thread owns the session and does everything in the order in which it is asked. A second one only waits for frames
of the present connection and hands them over, a few at a time, so that a flood is held back at the socket.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Callable, Dict, List, Optional, Tuple, Union

from . import daemon
from ._vendor.underpaint_protocol import __version__
from ._vendor.underpaint_protocol.blobs import image_of
from ._vendor.underpaint_protocol.client import ClientSession, Picture
from ._vendor.underpaint_protocol.errors import ErrorInfo, describe, refusal_in
from ._vendor.underpaint_protocol.exceptions import ProtocolError
from ._vendor.underpaint_protocol.fields import Record
from ._vendor.underpaint_protocol.messages import MAX_FRAME, SUBPROTOCOL, TERMINAL, Error, Preview, Request
from ._vendor.websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from ._vendor.websockets.sync.client import ClientConnection, connect
from ._vendor.websockets.typing import Subprotocol
from .mailbox import Mailbox
from .pixels import Buffer, KritaPixels, with_red_and_blue_swapped

log = logging.getLogger(__name__)

CLIENT = f"underpaint_krita {__version__}"
OPEN_TIMEOUT = 10.0
CLOSE_TIMEOUT = 1.0
FRAMES_AT_HAND = 16
"""Frames that wait for the network thread, at most; 4 MiB of pixels."""
START_TIMEOUT = 90.0
"""Seconds that a daemon may take to listen: a first start imports a lot."""
START_INTERVAL = 0.25


@dataclass(frozen=True)
class Job:
    """What the daemon shall paint. `pixels` and `mask` are of the size of the request, as Krita keeps them.

    `pixels` is blue, green, red, alpha; both are None for a picture from nothing.
    """

    id: str
    request: Request
    pixels: Optional[Buffer] = None
    mask: Optional[Buffer] = None


@dataclass(frozen=True)
class Frame:
    """A preview, ready for the layer, as large as the request."""

    job: str
    step: int
    pixels: KritaPixels


@dataclass(frozen=True)
class Finished:
    """A finished picture, ready for the layer, as large as the request."""

    job: str
    index: int
    seed: int
    pixels: KritaPixels


@dataclass(frozen=True)
class Disconnected:
    """There is no connection, or none any more. Every job that ran on it is over."""

    error: ErrorInfo


Event = Union[Record, Finished, Disconnected]
Develop = Callable[[bytes, int, int, Optional[Buffer]], KritaPixels]
"""From a JPEG, a width, a height and a mask to pixels for Krita; `ValueError` if it is not a JPEG."""
Convert = Callable[[bytes], KritaPixels]
"""From red, green, blue, alpha to pixels for Krita."""


class Network:
    """The connection to one server at a time. Its methods return at once; what comes of them goes to the mailbox."""

    def __init__(self, mailbox: Mailbox[Event, Frame], develop: Develop, convert: Convert) -> None:
        """`develop` and `convert` are called in the network thread."""
        self._mailbox = mailbox
        self._develop = develop
        self._convert = convert
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(FRAMES_AT_HAND)
        self._closing = threading.Event()
        self._connection: Optional[ClientConnection] = None
        self._session = ClientSession(CLIENT)
        self._jobs: Dict[str, Job] = {}
        self._preview: Optional[Preview] = None
        self.started: Optional[subprocess.Popen[bytes]] = None
        """The daemon, if it was started from here. Kept so that Python looks after its end."""
        threading.Thread(target=self._run, name="underpaint-network", daemon=True).start()

    def connect(self, server: str, token: str) -> None:
        """Connect to `server`, leaving any other. Ends in `Welcome` or `Disconnected`."""
        self._inbox.put(partial(self._connect, server, token))

    def start_daemon(self, server: str, read_token: Callable[[], str]) -> None:
        """Start the daemon on this machine and connect to it at `server` as soon as it listens.

        `read_token` is asked before each attempt, because a first start makes the token.
        """
        self._inbox.put(partial(self._start_daemon, server, read_token))

    def submit(self, job: Job) -> None:
        """Send a job, which ends in one of `Done`, `Failed`, `Cancelled`, `Error` and `Disconnected`."""
        self._inbox.put(partial(self._submit, job))

    def cancel(self, job: str) -> None:
        """Ask to stop a job."""
        self._inbox.put(partial(self._cancel, job))

    def close(self) -> None:
        """Disconnect and end the thread; nothing goes to the mailbox any more."""
        self._closing.set()
        self._inbox.put(self._disconnect)

    # Everything below runs in the network thread.

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._next()()
            except Exception:  # a fault of ours must not leave the artist waiting for ever
                log.exception("the network thread stumbled")
                self._give_up(describe("internal"))
        self._disconnect()

    def _next(self) -> Callable[[], None]:
        """What to do next. Previews are developed when there is nothing else to do, and then only the newest."""
        if self._preview is None:
            return self._inbox.get()
        try:
            return self._inbox.get_nowait()
        except queue.Empty:
            return self._show_preview

    def _connect(self, server: str, token: str) -> None:
        self._disconnect()
        error = self._try_to_connect(server, token)
        if error is not None:
            self._mailbox.post(Disconnected(error))

    def _try_to_connect(self, server: str, token: str) -> Optional[ErrorInfo]:
        if not (token.isascii() and token.isprintable()):
            return describe("unauthorized")  # A header cannot hold it, and a line break would begin another one.
        try:
            connection = connect(
                server,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers={"Authorization": f"Bearer {token}"},
                compression=None,
                max_size=MAX_FRAME,
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
            )
        except InvalidStatus as error:
            return refusal_in(error.response.body) or describe("unreachable", detail=server)
        except (OSError, ValueError, InvalidURI, InvalidHandshake):
            return describe("unreachable", detail=server)
        if connection.subprotocol != SUBPROTOCOL:
            connection.close()
            return describe("wrong_version")
        self._connection, self._session = connection, ClientSession(CLIENT)
        threading.Thread(target=self._listen, args=[connection], name="underpaint-listener", daemon=True).start()
        self._send(self._session.hello())
        return None

    def _start_daemon(self, server: str, read_token: Callable[[], str]) -> None:
        self._disconnect()
        error = self._try_to_connect(server, read_token())
        if error is not None and error.code == "unreachable":
            error = self._start_and_connect(server, read_token)
        if error is not None:
            self._mailbox.post(Disconnected(error))

    def _start_and_connect(self, server: str, read_token: Callable[[], str]) -> Optional[ErrorInfo]:
        command = daemon.launch_command()
        if command is None:
            return describe("not_installed")
        try:
            self.started = process = daemon.start(daemon.at_port_of(server, command))
        except OSError as error:
            return describe("not_started", detail=error)
        end = time.monotonic() + START_TIMEOUT
        while not self._closing.wait(START_INTERVAL):
            problem = self._try_to_connect(server, read_token())
            if problem is None or problem.code != "unreachable" or time.monotonic() > end:
                return problem
            if process.poll() is not None:
                return describe("not_started", detail=f"it ended with status {process.returncode}")
        return None

    def _submit(self, job: Job) -> None:
        if self._connection is None:
            self._mailbox.post(Disconnected(describe("disconnected")))
            return
        request, blobs = _on_the_wire(job)
        self._jobs[job.id] = job
        for frame in self._session.submit(job.id, request, blobs):
            if not self._send(frame):
                break

    def _cancel(self, job: str) -> None:
        if job in self._jobs:
            self._send(self._session.cancel(job))

    def _send(self, frame: bytes) -> bool:
        connection = self._connection
        if connection is None:
            return False
        try:
            connection.send(frame)
        except (OSError, WebSocketException):
            self._lost(connection)
            return False
        return True

    def _listen(self, connection: ClientConnection) -> None:
        """Runs in the listening thread."""
        try:
            for frame in connection:
                self._room.acquire()
                self._inbox.put(partial(self._received, connection, frame))
        except (OSError, WebSocketException):
            pass
        self._inbox.put(partial(self._lost, connection))

    def _received(self, connection: ClientConnection, frame: Union[str, bytes]) -> None:
        self._room.release()
        if connection is not self._connection:
            return
        try:
            for event in self._session.receive(frame if isinstance(frame, bytes) else frame.encode()):
                self._pass_on(event)
        except ProtocolError as error:
            self._give_up(describe(error.code, detail=error))

    def _pass_on(self, event: Union[Record, Picture]) -> None:
        if isinstance(event, Preview):
            self._preview = event
        elif isinstance(event, Picture):
            self._mailbox.post(Finished(event.job, event.index, event.seed, self._convert(event.pixels)))
        else:
            if isinstance(event, (*TERMINAL, Error)) and event.job not in self._session.running:
                self._forget(event.job)
            self._mailbox.post(event)

    def _show_preview(self) -> None:
        preview, self._preview = self._preview, None
        job = self._jobs.get(preview.job) if preview is not None else None
        if preview is None or job is None:
            return
        try:
            pixels = self._develop(preview.data, job.request.width, job.request.height, job.mask)
        except ValueError:
            return  # The next preview, or the picture itself, will do.
        self._mailbox.show(Frame(job.id, preview.step, pixels))

    def _forget(self, job: Optional[str]) -> None:
        self._jobs.pop(job or "", None)
        if self._preview is not None and self._preview.job == job:
            self._preview = None

    def _lost(self, connection: ClientConnection) -> None:
        if connection is self._connection:
            self._give_up(describe("disconnected"))

    def _give_up(self, error: ErrorInfo) -> None:
        self._disconnect()
        self._mailbox.post(Disconnected(error))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._jobs.clear()
        self._preview = None
        if connection is not None:
            connection.close()


def _on_the_wire(job: Job) -> Tuple[Request, List[bytes]]:
    """The request with its pictures named, and their bytes: red, green, blue, alpha."""
    if job.pixels is None or job.mask is None:
        return job.request, []
    width, height = job.request.width, job.request.height
    pixels, mask = bytes(with_red_and_blue_swapped(job.pixels)), bytes(job.mask)
    request = dataclasses.replace(
        job.request, image=image_of(width, height, 4, pixels), mask=image_of(width, height, 1, mask)
    )
    return request, [pixels, mask]
