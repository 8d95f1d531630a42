"""A small server that follows SPEC.md, without a socket and without a model: what the client's core is tested against.

Time passes only when a test says so: `work` moves the oldest job one message on. `evict`, `forget`, `kill_worker` and
`restart` are what may happen to a real daemon.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from underpaint_protocol.encodings import ENCODINGS, XOR, decode
from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of, pixels_of
from underpaint_protocol.messages import (
    RESUMED_ELSEWHERE,
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Done,
    Error,
    Failed,
    Fetch,
    Have,
    Hello,
    Limits,
    Missing,
    Model,
    Position,
    Preview,
    Progress,
    Pull,
    Pulling,
    Request,
    Result,
    Resume,
    Resumed,
    Started,
    Submit,
    Tile,
    Welcome,
    Worker,
    vocabulary,
)
from underpaint_protocol.tiles import name_of

MODEL = Model("m", "M", "test", ("inpaint", "text_to_image"), ("ddim",), 16384, 8, 4, 1.0, "ddim")
LIMITS = Limits(1 << 24, 64, 16, 1 << 30, keep_seconds=86400, stall_seconds=30)
MODEL_BYTES = 1000
GAP = 100
"""What a restart adds to the numbers of a session, because it does not know how far progress was numbered."""


def painted(request: Request, index: int, pixels: bytes | bytearray | None) -> bytes:
    """Picture `index` of a request, RGBA: what it was given turned around, or a pattern of its seed."""
    if pixels is not None:
        return bytes(255 - value for value in pixels)
    pattern = name_of(f"{request.seed + index}".encode())
    return bytes(itertools.islice(itertools.cycle(pattern), request.width * request.height * 4))


@dataclass
class Painting:
    """A job on the server: `todo` are the messages of its present attempt that were not sent yet."""

    submit: Submit
    pixels: bytearray | None
    attempt: int = 0
    todo: list[Record] | None = None
    ended: bool = False
    tiles: dict[bytes, bytes] = field(default_factory=dict)
    lost: set[bytes] = field(default_factory=set)


@dataclass
class Session:
    """What the server keeps of one client; `log` is its journal."""

    id: str
    jobs: dict[str, Painting] = field(default_factory=dict)
    log: list[Record] = field(default_factory=list)
    seq: int = 0
    line: Line | None = None

    def tell(self, message: Record) -> None:
        """Number a state message, write it down and send it."""
        self.seq += 1
        numbered: Record = dataclasses.replace(message, seq=self.seq)  # type: ignore[call-arg]
        self.log.append(numbered)
        if self.line is not None:
            self.line.say(numbered)

    def forget(self, job: str) -> None:
        del self.jobs[job]
        self.log = [message for message in self.log if message.job != job]  # type: ignore[attr-defined]


class ReferenceServer:
    """Sessions, their jobs, and the tiles that came."""

    def __init__(self, encodings: Sequence[str] = (*ENCODINGS, XOR)) -> None:
        self.encodings = tuple(encodings)
        self.sessions: dict[str, Session] = {}
        self.tiles: dict[bytes, bytes] = {}
        self.acknowledged: list[str] = []
        self.draining = False
        self.lines: list[Line] = []
        self.pulls: list[Line] = []
        """Those that wait for the model."""
        self._ids = itertools.count()

    def connect(self) -> Line:
        """A client opened a connection."""
        line = Line(self)
        self.lines.append(line)
        return line

    def work(self) -> bool:
        """Move the oldest job of any session one message on; false if nothing is to be done."""
        for session in self.sessions.values():
            for painting in session.jobs.values():
                if not painting.ended:
                    self._advance(session, painting)
                    return True
        for line in self.pulls:
            line.say(Pulling(MODEL.id, MODEL_BYTES, MODEL_BYTES))
        self.pulls.clear()
        return False

    def kill_worker(self) -> None:
        """Jobs that were running start again, once."""
        for session in self.sessions.values():
            for job, painting in session.jobs.items():
                if painting.todo is not None and not painting.ended:
                    painting.todo = None
                    if painting.attempt == 2:
                        painting.ended = True
                        session.tell(Failed(job, describe("worker_died", detail="killed")))

    def drain(self) -> None:
        """The daemon takes no new job until it is started again."""
        self.draining = True

    def evict(self) -> None:
        """The store of tiles lost all that no job needs."""
        self.tiles.clear()

    def damage(self) -> None:
        """The disk lost pictures that were painted."""
        for session in self.sessions.values():
            for painting in session.jobs.values():
                painting.lost.update(painting.tiles)

    def forget(self) -> None:
        """There was no room for the results of ended jobs."""
        for session in self.sessions.values():
            for job in [job for job, painting in session.jobs.items() if painting.ended]:
                session.forget(job)

    def restart(self, *, memory: bool) -> None:
        """The daemon was killed and started again, with its journal or without."""
        for line in self.lines:
            line.drop()
        self.draining = False
        self.tiles.clear()
        self.sessions = dict(self.sessions) if memory else {}
        for session in self.sessions.values():
            session.seq += GAP
            session.log = [message for message in session.log if not isinstance(message, Progress)]
            for painting in session.jobs.values():
                painting.todo = None

    def new_session(self) -> Session:
        session = Session(f"{next(self._ids):032x}")
        self.sessions[session.id] = session
        return session

    def _advance(self, session: Session, painting: Painting) -> None:
        if painting.todo is None:
            painting.attempt += 1
            painting.todo = self._course(painting)
        message = painting.todo.pop(0)
        if isinstance(message, (Preview, Position)):
            if session.line is not None:
                session.line.say(message)
            return
        painting.ended = isinstance(message, Done)
        session.tell(message)

    def _course(self, painting: Painting) -> list[Record]:
        """All messages of one attempt."""
        job, request = painting.submit.job, painting.submit.request
        course: list[Record] = [Started(job, painting.attempt), Progress(job, "denoising", 0.25, 1, 4)]
        if painting.submit.previews:
            course.append(Preview(job, 0, 1, 1, 1, b"jpeg", 0.0))
        for index in range(request.batch):
            pixels = painted(request, index, painting.pixels)
            at = request.image
            image, tiles = image_of(request.width, request.height, 4, pixels, x=at.x if at else 0, y=at.y if at else 0)
            painting.tiles.update(tiles)
            course.append(Result(job, index, request.seed + index, image))
            course.append(Progress(job, "compositing", 0.5 + index / 32, 4, 4))
        return [*course, Done(job, 1.0)]


class Line:
    """The server's end of one connection. State goes ahead of pixels."""

    def __init__(self, server: ReferenceServer) -> None:
        self.closed: int | None = None
        self.session: Session | None = None
        self._server = server
        self._fresh = False
        self._control: deque[Record] = deque()
        self._bulk: deque[Tile] = deque()

    def say(self, message: Record) -> None:
        (self._bulk if isinstance(message, Tile) else self._control).append(message)  # type: ignore[arg-type]

    def next_frame(self) -> bytes | None:
        """The next frame for the client; None if there is none."""
        lane = self._control or self._bulk
        return vocabulary.encode(lane.popleft()) if lane else None

    def drop(self, code: int = 1006) -> None:
        """The connection is gone, with all that was on its way."""
        if self.closed is None:
            self.closed = code
            self._control.clear()
            self._bulk.clear()
            self._server.lines.remove(self)
            if self.session is not None and self.session.line is self:
                self.session.line = None

    def receive(self, frame: bytes) -> None:
        """One frame of the client."""
        try:
            message = vocabulary.decode(frame)
        except ProtocolError as error:
            self._refuse(describe(error.code, detail=error))
            return
        fresh, self._fresh = self._fresh, isinstance(message, Hello)
        if isinstance(message, Hello):
            self._greet()
        elif isinstance(message, Resume):
            assert fresh, "resume comes directly after welcome"
            self._resume(message)
        else:
            assert self.session is not None, "hello comes first"
            self._answer(self.session, message)

    def _greet(self) -> None:
        self._enter(self._server.new_session())
        assert self.session is not None
        welcome = Welcome("reference", self.session.id, Worker("ready"), (MODEL,), LIMITS, self._server.encodings)
        self.say(welcome)

    def _enter(self, session: Session) -> None:
        if session.line is not None:
            session.line.drop(RESUMED_ELSEWHERE)
        self.session, session.line = session, self

    def _resume(self, resume: Resume) -> None:
        session = self._server.sessions.get(resume.session)
        if session is None:
            self._refuse(describe("unknown_session"))
            return
        assert self.session is not None
        del self._server.sessions[self.session.id]
        self._enter(session)
        self.say(Resumed(session.id, tuple(session.jobs)))
        for message in session.log:
            if message.seq > resume.last_seq:  # type: ignore[attr-defined]
                self.say(message)

    def _refuse(self, error: ErrorInfo, job: str | None = None) -> None:
        self.say(Error(error, job))

    def _answer(self, session: Session, message: Record) -> None:
        if isinstance(message, Have):
            self.say(Missing(self._lacking(message.tiles), query=message.query))
        elif isinstance(message, Tile):
            self._store(message)
        elif isinstance(message, Submit):
            self._submit(session, message)
        elif isinstance(message, Cancel):
            self._cancel(session, message.job)
        elif isinstance(message, Fetch):
            self._fetch(session, message)
        elif isinstance(message, Acknowledge):
            self._acknowledge(session, message.job)
        elif isinstance(message, Pull):
            self._pull(message)
        else:
            raise AssertionError(f"a client may not say {message}")

    def _pull(self, pull: Pull) -> None:
        if pull.model != MODEL.id:
            self._refuse(describe("unknown_model", detail=pull.model))
        elif pull.stop:
            self._server.pulls.remove(self)
            self.say(Pulling(pull.model, 0, MODEL_BYTES, stopped=True))
        else:
            self._server.pulls.append(self)
            self.say(Pulling(pull.model, 0, MODEL_BYTES))

    def _store(self, tile: Tile) -> None:
        base = self._server.tiles.get(tile.base or b"")
        if tile.base is not None and base is None:
            return  # The submit that needs it asks for the whole tile.
        data = decode(tile.encoding, tile.data, tile.size, base)
        assert name_of(data) == tile.name
        self._server.tiles[tile.name] = data

    def _lacking(self, names: Sequence[bytes]) -> tuple[bytes, ...]:
        return tuple(dict.fromkeys(name for name in names if name not in self._server.tiles))

    def _submit(self, session: Session, submit: Submit) -> None:
        known = session.jobs.get(submit.job)
        if known is not None:
            if known.submit.request != submit.request:
                self._refuse(describe("duplicate_job"), submit.job)
            return
        if submit.request.model != MODEL.id:
            self._refuse(describe("unknown_model", detail=submit.request.model), submit.job)
        elif self._server.draining:
            self._refuse(describe("shutting_down"), submit.job)
        elif missing := self._lacking([name for image in submit.request.images for name in image.tiles]):
            self.say(Missing(missing, job=submit.job))
        else:
            self._accept(session, submit, self._server.tiles)

    def _accept(self, session: Session, submit: Submit, tiles: Mapping[bytes, bytes]) -> None:
        image = submit.request.image
        waiting = sum(not painting.ended for painting in session.jobs.values())
        session.jobs[submit.job] = Painting(submit, pixels_of(image, tiles) if image else None)
        session.tell(Accepted(submit.job, waiting))
        older = session.jobs.get(submit.supersedes or "")
        if older is not None and not older.ended:
            self._cancel(session, older.submit.job)

    def _cancel(self, session: Session, job: str) -> None:
        painting = session.jobs.get(job)
        if painting is None or painting.ended:
            self._refuse(describe("unknown_job"), job)
        else:
            painting.ended = True
            session.tell(Cancelled(job))

    def _fetch(self, session: Session, fetch: Fetch) -> None:
        painting = session.jobs.get(fetch.job)
        if painting is None or any(name not in painting.tiles for name in fetch.tiles):
            self._refuse(describe("unknown_job"), fetch.job)
        else:
            for name in fetch.tiles:
                if name in painting.lost:
                    self._refuse(describe("missing_pixels", detail="it was lost"), fetch.job)
                else:
                    self.say(Tile(name, len(painting.tiles[name]), painting.tiles[name]))

    def _acknowledge(self, session: Session, job: str) -> None:
        painting = session.jobs.get(job)
        if painting is not None and painting.ended:
            self._server.acknowledged.append(job)
            session.forget(job)
