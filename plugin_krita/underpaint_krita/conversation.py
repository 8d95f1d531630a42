"""What is said to a server and heard from it: the session, and the jobs that somebody waits for.

Belongs to the network thread. A job is wanted from `submit` on until it was cancelled, refused or acknowledged; what
is not wanted, such as a job that was cancelled before Krita died, is stopped and acknowledged without a word.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Dict, Optional, Set, Union

from ._vendor.underpaint_protocol import __version__
from ._vendor.underpaint_protocol.client import ClientSession, Picture, preferred_encodings
from ._vendor.underpaint_protocol.errors import describe
from ._vendor.underpaint_protocol.exceptions import ProtocolError
from ._vendor.underpaint_protocol.fields import Record
from ._vendor.underpaint_protocol.messages import TERMINAL, Done, Error, Failed
from .events import Disconnected, Job, Reconnecting, Remembered
from .line import Line, Target
from .notebook import Notebook
from .settings import is_local
from .upload import on_the_wire

CLIENT = f"underpaint_krita {__version__}"

News = Union[Record, Picture, Remembered, Reconnecting, Disconnected]


class Conversation:
    """The conversation with one server at a time, over a line that may break."""

    def __init__(
        self, tell: Callable[[News], None], later: Callable[[Callable[[], None]], None], notebook: Notebook
    ) -> None:
        """`later`, which any thread may call, has something done in the network thread."""
        self._tell = tell
        self._notebook = notebook
        self.line = Line(self, later, tell)
        self._server: Optional[str] = None
        self._session = ClientSession(CLIENT)
        self._wanted: Dict[str, Job] = {}
        self._safe: Set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for a picture."""
        return bool(self._wanted)

    def running(self, job: str) -> Optional[Job]:
        """The job of this id, if it is wanted and has not ended."""
        return self._wanted.get(job) if job in self._session.running else None

    def connect(self, target: Target) -> None:
        """Talk to the server at `target`."""
        self.line.hang_up()
        self._turn_to(target.server)
        self.line.connect(target)

    def start_daemon(self, target: Target) -> None:
        """Talk to the daemon at `target`, which is started if it does not run."""
        self.line.hang_up()
        self._turn_to(target.server)
        self.line.start_daemon(target)

    def send_frame(self) -> bool:
        """Send the next frame; false if there is none, or nobody to send it to."""
        frame = self._session.next_frame() if self.line.is_open else None
        if frame is None:
            return False
        self.line.send(frame)
        return True

    def stumbled(self) -> None:
        """What the session knows may be wrong. The next one asks the server."""
        self._server = None
        self.line.give_up(describe("internal"))

    def submit(self, job: Job) -> None:
        """Send a job, now or as soon as there is a connection.

        Raises `TileError` if its pixels are not as large as its request.
        """
        if self._server is None:
            self._tell(Disconnected(describe("disconnected")))
            return
        request, tiles = on_the_wire(job)
        self._wanted[job.id] = dataclasses.replace(job, pixels=None)  # The session has them in tiles.
        self._notebook.add(self._server, job)
        self._session.submit(job.id, request, tiles)
        self.line.need()

    def cancel(self, job: str) -> None:
        """Stop a job; nothing more is told of it."""
        self._wanted.pop(job, None)
        self._notebook.remove(job)
        self._session.cancel(job)
        self._settle(job)

    def acknowledge(self, job: str) -> None:
        """The picture of a job is safe, or will never be. Its end is still told."""
        self._safe.add(job)
        self._notebook.remove(job)
        self._settle(job)

    def pull(self, model: str, stop: bool) -> None:
        """Have a model fetched by the server, or leave off."""
        self._session.pull(model, stop=stop)
        self.line.need()

    # What the line has to say

    def opened(self) -> None:
        """There is a line."""
        self._session.connected()

    def broken(self) -> None:
        """There is none any more."""
        self._session.disconnected()

    def received(self, frame: bytes) -> None:
        """A frame came."""
        ready = self._session.ready
        try:
            events = self._session.receive(frame)
        except ProtocolError as error:
            self.line.drop(describe(error.code, detail=error))
            return
        for event in events:
            self._pass_on(event)
        if self._session.ready and not ready:
            self._agreed()

    def _turn_to(self, server: str) -> None:
        """Another server means another session, with jobs of its own."""
        if server == self._server:
            return
        self._server = server
        self._wanted = self._notebook.jobs(server)
        self._safe.clear()
        encodings = preferred_encodings(is_local(server))
        self._session = ClientSession(CLIENT, encodings, self._notebook.session(server))
        if self._wanted:
            self._tell(Remembered(tuple(self._wanted.values())))

    def _agreed(self) -> None:
        """Both sides know the same jobs from here on, and only those that somebody waits for."""
        self._notebook.begin(self._server or "", self._session.session or "")
        for job in self._session.open:
            if job not in self._wanted:
                self.cancel(job)
        for job in set(self._wanted) - set(self._session.open):
            self._pass_on(Failed(job, describe("unknown_job")))

    def _pass_on(self, event: Union[Record, Picture]) -> None:
        job: Optional[str] = getattr(event, "job", None)
        if job is None or job in self._wanted:
            self._tell(event)
        if job is not None and isinstance(event, (*TERMINAL, Error)):
            if not isinstance(event, Done) and job not in self._session.running:
                self.acknowledge(job)  # There is no picture to be kept.
            self._settle(job)

    def _settle(self, job: str) -> None:
        """Let the server forget a job that has ended, if nobody waits for its picture any more."""
        if job in self._session.running or (job in self._wanted and job not in self._safe):
            return
        self._wanted.pop(job, None)
        self._safe.discard(job)
        self._session.acknowledge(job)
