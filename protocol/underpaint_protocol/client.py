"""The client's side of the conversation, without a socket: frames in, events and frames out.

A session outlives its connections. A shell (a thread in the plugin, asyncio in the daemon's own tools) moves the bytes:

    session = ClientSession("my program 1.0")
    session.connected()                          # on each new connection
    while (frame := session.next_frame()):       # whenever there may be something to send
        send(frame)
    for event in session.receive(frame):         # whenever something came
        ...

What was submitted is kept until it has ended, so that it can be sent again to a daemon that forgot it. Each job ends
in exactly one terminal event, or in the `Error` that refused it, whatever happens to connections and daemons in
between.
"""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import List, Mapping, Optional, Sequence

from .downloads import Event, Picture
from .encodings import ENCODINGS, decode
from .errors import ErrorInfo, describe
from .exceptions import OutOfOrder, TileError, UnknownMessage
from .fields import Record
from .jobs import JobState
from .ledger import Job, Ledger
from .messages import (
    MAX_TILES,
    STATE,
    TERMINAL,
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Error,
    Failed,
    Fetch,
    Have,
    Missing,
    Models,
    Position,
    Preview,
    Pull,
    Pulling,
    Request,
    Resume,
    Resumed,
    Started,
    Status,
    Submit,
    Tile,
    Welcome,
    vocabulary,
)
from .opening import Agreed, Opening, Stage
from .pulls import Pulls
from .tiles import name_of
from .uploads import Outgoing
from .vocabulary import FROM_SERVER

__all__ = ["ClientSession", "Event", "Picture", "preferred_encodings"]


MAX_ROUNDS = 8
"""Times that a job's tiles are sent again before it is given up: a daemon that forgets them each time has no room."""


class ClientSession:
    """What a client knows of its conversation with one server."""

    def __init__(self, client: str, encodings: Sequence[str] = ("raw",), session: Optional[str] = None) -> None:
        """`client` names the program and its version; `encodings` are those for tiles, best first.

        With `session`, the id of an earlier life's, all jobs that were not acknowledged then are told again.
        """
        self.last_seq = 0
        self._opening = Opening(client, encodings, session)
        self._jobs = Ledger()
        self._out = Outgoing()
        self._pulls = Pulls()
        self._query = 0
        self._objection: Optional[ErrorInfo] = None  # to a tile; the job that needs it shows when it is submitted

    @property
    def session(self) -> Optional[str]:
        """The id under which the server knows what goes on here; None before the first `welcome`."""
        return self._opening.session

    @property
    def welcome(self) -> Optional[Welcome]:
        """What the server said last of itself; None before the first `welcome`."""
        return self._opening.welcome

    @property
    def ready(self) -> bool:
        """Whether this connection's session is agreed on, so that `session` and `open` are those of the server."""
        return self._opening.stage is Stage.READY

    @property
    def running(self) -> Sequence[str]:
        """Ids of the jobs whose end was not told yet."""
        return tuple(job for job, known in self._jobs.items() if not known.told)

    @property
    def open(self) -> Sequence[str]:
        """Ids of the jobs that were not acknowledged."""
        return tuple(job for job, _ in self._jobs.items())

    # What the program wants

    def connected(self) -> None:
        """There is a new connection: greet, and go on where the last one ended."""
        self._out.clear()
        self._objection = None
        self._out.say(self._opening.greet())

    def disconnected(self) -> None:
        """The connection is lost; what is asked for from now on waits for the next one."""
        self._out.clear()
        self._opening.stage = Stage.APART

    def submit(
        self,
        job: str,
        request: Request,
        tiles: Optional[Mapping[bytes, bytes]] = None,
        *,
        previews: bool = True,
        supersedes: Optional[str] = None,
    ) -> None:
        """Submit a job; `tiles` are those that `request` names, and are kept until the job has ended.

        Raises `OutOfOrder` if a job of this id was submitted before (one that was refused does not count), and
        `TileError` if a tile of `request` is not among `tiles`.
        """
        if job in self._jobs or self._jobs.is_over(job):
            raise OutOfOrder(f"the job {job} was submitted already")
        given = tiles or {}
        if any(name not in given for image in request.images for name in image.tiles):
            raise TileError("the request names a tile that is not given")
        # Others may be among them, such as those of the whole canvas.
        needed = {name: given[name] for image in request.images for name in image.tiles}
        known = self._jobs.add(job, Job(Submit(job, request, previews, supersedes), needed))
        if self.ready:
            self._offer(known)

    def cancel(self, job: str) -> None:
        """Ask to stop a job, which still ends in its one event; nothing happens for one that has ended."""
        known = self._jobs.get(job)
        if known is None or known.state.ended or known.cancelled:
            return
        known.cancelled = True
        self._out.drop(job)
        if self.ready:
            self._say_cancel(job, known)

    def acknowledge(self, job: str) -> None:
        """The job has ended and its pictures are safe: both sides may forget it. Twice does no harm.

        Raises `OutOfOrder` if its end was not told yet.
        """
        known = self._jobs.get(job)
        if known is None:
            return
        if not known.told:
            raise OutOfOrder(f"the job {job} has not ended")
        self._jobs.close(job)
        if self.ready:
            self._out.say(Acknowledge(job))

    def pull(self, model: str, *, stop: bool = False) -> None:
        """Ask the server to fetch the files of a model, or to leave off. `Pulling` tells how far it is."""
        wish = Pull(model, stop)
        self._pulls.wish(wish)
        if self.ready:
            self._out.say(wish)

    def next_frame(self) -> Optional[bytes]:
        """The next frame to send; None if there is nothing to say at present. Pixels go last."""
        return self._out.next_frame()

    # What the server says

    def receive(self, frame: bytes) -> List[Event]:
        """The events in one frame of the server; none for its part of the protocol's own business.

        Raises `ProtocolError` if the server breaks the language; the connection is of no use then.
        """
        try:
            message = vocabulary.decode(frame, FROM_SERVER)
        except UnknownMessage:  # of a later version
            return []
        self._hear_of_models(message)
        if isinstance(message, (Welcome, Resumed)) or not self.ready:
            return self._open(message)
        if isinstance(message, STATE):
            return self._follow(message)
        if isinstance(message, Tile):
            return self._take(message)
        if isinstance(message, Missing):
            return self._send_missing(message)
        if isinstance(message, Error):
            return self._refused(message)
        if isinstance(message, (Preview, Position)):
            known = self._jobs.get(message.job)
            return [message] if known is not None and not known.state.ended else []
        return [_of_server(message)]

    def _hear_of_models(self, message: Record) -> None:
        """What can be run there changed, or is on its way."""
        self._pulls.hear(message)
        if isinstance(message, Models) and self._opening.welcome is not None:
            self._opening.welcome = dataclasses.replace(self._opening.welcome, models=message.models)

    # Opening a connection

    def _open(self, message: Record) -> List[Event]:
        answer = self._opening.receive(message, self.last_seq)
        if isinstance(message, Welcome):
            self._out.agree(self._opening.encodings, message.encodings)
        events: List[Event] = [message] if answer is None or isinstance(message, Welcome) else []
        if isinstance(answer, Resume):
            self._out.say(answer)
        elif isinstance(answer, Agreed):
            events.extend(self._go_on(answer))
        return events

    def _go_on(self, agreed: Agreed) -> List[Event]:
        """Say again what the server may not have heard. Jobs that it does not know begin anew."""
        if agreed.fresh:
            self.last_seq = 0
        for pull in self._pulls.open():
            self._out.say(pull)
        for name in agreed.jobs:
            self._heard_of(name)
        events: List[Event] = []
        known = set(agreed.jobs)
        for name, job in self._jobs.items():
            if name in known:
                self._repeat(name, job)
            elif not job.told:
                events.extend(self._begin_anew(name, job))
        return events

    def _heard_of(self, name: str) -> None:
        """The server has a job: one that is over here, one of an earlier life, or one of this."""
        if self._jobs.is_over(name):
            self._out.say(Acknowledge(name))
        elif name not in self._jobs:
            self._jobs.add(name, Job())

    def _repeat(self, name: str, job: Job) -> None:
        job.doubt, job.settled = False, job.told
        if job.cancelled and not job.state.ended:
            self._say_cancel(name, job)
        self._fetch(name, job.download.missing)

    # Jobs on their way to the server

    def _begin_anew(self, name: str, job: Job) -> List[Event]:
        """The server does not know a job: submit it again, or give up one whose request an earlier life had."""
        if job.submit is None:
            self._jobs.close(name)
            return [Failed(name, describe("unknown_job"))]
        job.state = JobState()
        job.download.forget()
        self._offer(job)
        return []

    def _offer(self, job: Job) -> None:
        """Ask which tiles travel; without any, submit at once."""
        assert job.submit is not None
        if job.cancelled:
            self._say_cancel(job.submit.job, job)
        elif job.tiles:
            self._query += 1
            job.query = self._query
            # Of more tiles than one message holds, the daemon asks for the rest when the job is submitted.
            self._out.say(Have(job.query, tuple(islice(job.tiles, MAX_TILES))))
        else:
            self._out.say(job.submit)

    def _send_missing(self, missing: Missing) -> List[Event]:
        for name, job in self._jobs.items():
            asked = name == missing.job or (missing.query is not None and job.query == missing.query)
            if asked and job.submit is not None and not job.cancelled and not job.state.accepted:
                if name == missing.job:
                    job.rounds += 1
                    if self._objection is not None or job.rounds > MAX_ROUNDS:
                        return self._give_back(name, self._objection or describe("storage_full"))
                if any(tile not in job.tiles for tile in missing.tiles):
                    raise TileError("the server asks for a tile that it was not offered")
                job.query = None
                # What the server asks for by the job's name it misses although it was sent, as a difference perhaps.
                self._out.submit(job.submit, missing.tiles, job.tiles, whole=name == missing.job)
        return []

    def _give_back(self, name: str, objection: ErrorInfo) -> List[Event]:
        """The server asks once more for what it would not take: the job is refused, rather than sent for ever."""
        self._objection = None
        self._jobs.refuse(name)
        return [Error(objection, name)]

    def _say_cancel(self, name: str, job: Job) -> None:
        job.doubt = True
        self._out.say(Cancel(name))

    # Refusals

    def _refused(self, error: Error) -> List[Event]:
        name, code = error.job, error.error.code
        if code == "missing_pixels":
            return self._lost(error)
        if name is None and code in ("daemon_disk_full", "bad_tile", "too_many_uploads"):
            self._objection = error.error
        job = self._jobs.get(name)
        if name is None or job is None:
            return [] if code == "unknown_job" else [error]  # which may answer a second cancel
        if job.state.accepted:
            return self._unknown(name, job) if code == "unknown_job" else [error]
        if code == "shutting_down":
            return []  # The next connection offers it again.
        if code == "unknown_job":
            return self._never_came(name, job)
        self._out.drop(name)
        self._jobs.refuse(name)
        return [error]

    def _never_came(self, name: str, job: Job) -> List[Event]:
        """The server does not know a job that it did not accept: the answer to a cancel that came before its submit.

        For a job that begins anew it may also be the answer to a fetch of its former results.
        """
        if not job.cancelled:
            return []
        self._jobs.close(name)
        return [Cancelled(name)]

    def _unknown(self, name: str, job: Job) -> List[Event]:
        """The server does not know a job that it accepted: the answer to a cancel that came too late, or to a fetch."""
        missing = job.download.missing
        if not missing:
            return []
        if job.doubt:
            job.doubt = False
            self._fetch(name, missing)
            return []
        return self._begin_anew(name, job)

    def _lost(self, error: Error) -> List[Event]:
        """The server does not have a tile of a result any more. Who is concerned cannot be told if no job is named."""
        events: List[Event] = []
        for name, job in self._jobs.items():
            if job.download.missing and error.job in (None, name):
                job.download.give_up(error.error)
                events.extend(self._release(job))
        return events

    # Jobs on the server

    def _follow(self, message: Record) -> List[Event]:
        seq, name = message.seq, message.job  # type: ignore[attr-defined]
        if seq <= self.last_seq:
            return []  # It came before the connection was lost.
        self.last_seq = seq
        if self._jobs.is_over(name):
            return self._pass_over(message)
        job = self._jobs.get(name)
        if job is None:
            raise OutOfOrder("the server speaks of a job that is not running")
        if job.settled:
            return []  # The daemon was killed before it had written the end down, and does the job again.
        if job.state.ended and isinstance(message, Started):  # The same, but its pictures had not all come.
            job.state = JobState()
            job.state.accepted = True
            job.download.forget()
        job.state.apply(message)
        if isinstance(message, Accepted):
            self._objection = None
            self._accepted(job)
        self._fetch(name, job.download.hold(message))
        return self._release(job)

    def _pass_over(self, message: Record) -> List[Event]:
        """A job that is over for the program, because its cancel came back before the news of it."""
        name = message.job  # type: ignore[attr-defined]
        if isinstance(message, Accepted):
            self._out.say(Cancel(name))
        elif isinstance(message, TERMINAL):
            self._out.say(Acknowledge(name))
        return []

    def _accepted(self, job: Job) -> None:
        """What a job supersedes may be on its way still, if its pixels were slower; it must not be accepted after."""
        if job.submit is None:
            return
        self._out.accepted(job.submit, job.tiles)
        if job.submit.supersedes is None:
            return
        older = self._jobs.get(job.submit.supersedes)
        if older is not None and not older.state.accepted:
            self.cancel(job.submit.supersedes)

    def _fetch(self, job: str, tiles: Sequence[bytes]) -> None:
        for start in range(0, len(tiles), MAX_TILES):
            self._out.say(Fetch(job, tuple(tiles[start : start + MAX_TILES])))

    def _take(self, tile: Tile) -> List[Event]:
        waiting = self._jobs.waiting_for(tile.name)
        if not waiting:
            return []  # Nobody waits for it any more.
        data = decode(tile.encoding, tile.data, tile.size)
        if name_of(data) != tile.name:
            raise TileError("its content does not match its name")
        events: List[Event] = []
        for job in waiting:
            job.download.take(tile.name, data)
            events.extend(self._release(job))
        return events

    @staticmethod
    def _release(job: Job) -> List[Event]:
        """What goes to the program now. With the end, the pixels of the request may go."""
        events = job.download.release()
        if events and isinstance(events[-1], TERMINAL):
            job.told = True
            job.tiles = {}
        return events


def preferred_encodings(local: bool) -> List[str]:
    """What a client should ask for: raw pixels on its own machine, compressed ones over a network."""
    return list(ENCODINGS) if local else list(reversed(ENCODINGS))


def _of_server(message: Record) -> Record:
    if isinstance(message, (Status, Models, Pulling)):
        return message
    raise OutOfOrder(f"{vocabulary.name_of(message)} is not the server's to say")
