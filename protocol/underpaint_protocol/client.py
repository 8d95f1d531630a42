"""The client's side of the conversation, without a socket: frames in, events and frames out.

A session outlives its connections. A shell (a thread in the plugin, asyncio in the daemon's own tools) moves the bytes:

    session = ClientSession("my program 1.0")
    session.connected()                          # on each new connection
    while (frame := session.next_frame()):       # whenever there may be something to send
        send(frame)
    for event in session.receive(frame):         # whenever something came
        ...

What was submitted is kept until it has ended, so that it can be sent again to a daemon that forgot it. Each job ends
in exactly one terminal event, whatever happens to connections and daemons in between.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

from .encodings import ENCODINGS, decode, encode
from .exceptions import OutOfOrder, TileError, UnknownMessage
from .fields import Record
from .images import pixels_of
from .jobs import JobState
from .messages import (
    MAX_TILES,
    STATE,
    TERMINAL,
    Acknowledge,
    Cancel,
    Cancelled,
    Error,
    Fetch,
    Have,
    Hello,
    Missing,
    Position,
    Preview,
    Request,
    Result,
    Resume,
    Resumed,
    Submit,
    Tile,
    Welcome,
    vocabulary,
)
from .tiles import name_of

REMEMBERED = 4096
"""Jobs that were acknowledged and are remembered, in case the daemon never heard of it."""


@dataclass(frozen=True)
class Picture:
    """A finished picture with its pixels: red, green, blue and straight alpha, sRGB, row by row.

    Its corner lies at (`x`, `y`) of the canvas; `depth` is 8 or 16 bits a channel, 16 in little-endian.
    """

    job: str
    index: int
    seed: int
    width: int
    height: int
    pixels: bytearray = field(repr=False)
    x: int = 0
    y: int = 0
    depth: int = 8


Event = Union[Record, Picture]


@dataclass
class _Job:
    """A job that has not been acknowledged. `submit` is None for one of an earlier life of this client."""

    submit: Optional[Submit] = None
    tiles: Mapping[bytes, bytes] = field(default_factory=dict)
    state: JobState = field(default_factory=JobState)
    query: Optional[int] = None
    cancelled: bool = False
    held: Deque[Record] = field(default_factory=deque)
    """Results whose tiles are on their way, and what came after them."""


class ClientSession:
    """What a client knows of its conversation with one server."""

    def __init__(self, client: str, encodings: Sequence[str] = ("raw",), session: Optional[str] = None) -> None:
        """`client` names the program and its version; `encodings` are those for tiles, best first.

        With `session`, the id of an earlier life's, all jobs that were not acknowledged then are told again.
        """
        self.client = client
        self.encodings = tuple(encodings)
        self.session = session
        self.welcome: Optional[Welcome] = None
        self.last_seq = 0
        self._jobs: Dict[str, _Job] = {}
        self._acknowledged: OrderedDict[str, None] = OrderedDict()
        self._control: Deque[Record] = deque()
        self._bulk: Deque[Tuple[str, Union[Submit, bytes]]] = deque()
        self._arriving: Dict[bytes, Optional[bytes]] = {}
        self._ready = False
        self._query = 0

    @property
    def running(self) -> Sequence[str]:
        """Ids of the jobs that have not ended."""
        return tuple(job for job, known in self._jobs.items() if not known.state.ended)

    @property
    def open(self) -> Sequence[str]:
        """Ids of the jobs that were not acknowledged."""
        return tuple(self._jobs)

    # What the program wants

    def connected(self) -> None:
        """There is a new connection: greet, and go on where the last one ended."""
        self._control.clear()
        self._bulk.clear()
        self._arriving.clear()
        self._ready = False
        self._control.append(Hello(self.client, self.encodings))

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

        Raises `OutOfOrder` if a job of this id is open, and `TileError` if a tile of `request` is not among `tiles`.
        """
        if job in self._jobs:
            raise OutOfOrder(f"the job {job} was submitted already")
        tiles = tiles or {}
        if any(name not in tiles for image in request.images for name in image.tiles):
            raise TileError("the request names a tile that is not given")
        known = self._jobs[job] = _Job(Submit(job, request, previews, supersedes), tiles)
        if self._ready:
            self._offer(known)

    def cancel(self, job: str) -> None:
        """Ask to stop a job, which still ends in its one event; nothing happens for one that has ended."""
        known = self._jobs.get(job)
        if known is None or known.state.ended:
            return
        known.cancelled = True
        self._drop_bulk(job)
        if self._ready:
            self._control.append(Cancel(job))

    def acknowledge(self, job: str) -> None:
        """The job has ended and its pictures are safe: both sides may forget it.

        Raises `OutOfOrder` if it has not ended.
        """
        known = self._jobs.get(job)
        if known is None:
            return
        if not known.state.ended:
            raise OutOfOrder(f"the job {job} has not ended")
        del self._jobs[job]
        self._acknowledged[job] = None
        if len(self._acknowledged) > REMEMBERED:
            self._acknowledged.popitem(last=False)
        if self._ready:
            self._control.append(Acknowledge(job))

    def next_frame(self) -> Optional[bytes]:
        """The next frame to send; None if there is nothing to say at present. Pixels go last."""
        if self._control:
            return vocabulary.encode(self._control.popleft())
        if not self._bulk:
            return None
        job, item = self._bulk.popleft()
        if isinstance(item, Submit):
            return vocabulary.encode(item)
        return vocabulary.encode(self._packed(item, self._jobs[job].tiles[item]))

    # What the server says

    def receive(self, frame: bytes) -> Iterator[Event]:
        """The events in one frame of the server; none for its part of the protocol's own business.

        Raises `ProtocolError` if the server breaks the language.
        """
        try:
            message = vocabulary.decode(frame)
        except UnknownMessage:  # of a later version
            return
        if isinstance(message, STATE):
            yield from self._follow(message)
        elif isinstance(message, Tile):
            yield from self._take(message)
        elif isinstance(message, (Welcome, Resumed, Missing, Error)):
            yield from self._negotiate(message)
        elif isinstance(message, (Preview, Position)):
            if self._is_running(message.job):
                yield message
        else:
            yield message

    def _negotiate(self, message: Union[Welcome, Resumed, Missing, Error]) -> Iterator[Event]:
        if isinstance(message, Welcome):
            self._greeted(message)
            yield message
        elif isinstance(message, Resumed):
            self._resumed(message)
        elif isinstance(message, Missing):
            self._send_missing(message)
        elif message.error.code == "unknown_session" and not self._ready:
            assert self.welcome is not None
            self._begin(self.welcome.session)
        else:
            yield from self._refused(message)

    def _greeted(self, welcome: Welcome) -> None:
        self.welcome = welcome
        if self.session is None:
            self._begin(welcome.session)
        else:
            self._control.append(Resume(self.session, self.last_seq))

    def _begin(self, session: str) -> None:
        """A new session: the server knows nothing of what went on before."""
        self.session, self.last_seq = session, 0
        self._go_on(known=())

    def _resumed(self, resumed: Resumed) -> None:
        for job in resumed.jobs:
            if job in self._acknowledged:
                self._control.append(Acknowledge(job))
            elif job not in self._jobs:
                self._jobs[job] = _Job()
        self._go_on(known=resumed.jobs)

    def _go_on(self, known: Sequence[str]) -> None:
        """Say again what the server may not have heard. Jobs that are not `known` to it begin anew."""
        self._ready = True
        for name, job in list(self._jobs.items()):
            if job.state.ended and not job.held:
                continue
            if name in known:
                self._repeat(name, job)
            elif job.submit is None:
                del self._jobs[name]
            else:
                job.state, job.query = JobState(), None
                job.held.clear()
                self._offer(job)

    def _repeat(self, name: str, job: _Job) -> None:
        if job.cancelled and not job.state.ended:
            self._control.append(Cancel(name))
        for held in job.held:
            if isinstance(held, Result):
                self._fetch(held)

    def _offer(self, job: _Job) -> None:
        """Ask which tiles travel; without any, submit at once."""
        assert job.submit is not None
        if job.cancelled:
            self._control.append(Cancel(job.submit.job))
        elif job.tiles:
            self._query += 1
            job.query = self._query
            # Of more tiles than one message holds, the daemon asks for the rest when the job is submitted.
            self._control.append(Have(job.query, tuple(islice(job.tiles, MAX_TILES))))
        else:
            self._control.append(job.submit)

    def _send_missing(self, missing: Missing) -> None:
        for name, job in self._jobs.items():
            asked = name == missing.job or (missing.query is not None and job.query == missing.query)
            if asked and job.submit is not None and not job.cancelled:
                if any(tile not in job.tiles for tile in missing.tiles):
                    raise TileError("the server asks for a tile that it was not offered")
                self._bulk.extend((name, tile) for tile in missing.tiles)
                self._bulk.append((name, job.submit))

    def _packed(self, name: bytes, data: bytes) -> Tile:
        assert self.welcome is not None
        best = next((one for one in self.encodings if one in self.welcome.encodings), "raw")
        packed = encode(best, data)
        return Tile(name, len(data), packed, best) if len(packed) < len(data) else Tile(name, len(data), data)

    def _refused(self, error: Error) -> Iterator[Event]:
        job = self._jobs.get(error.job or "")
        if job is None or job.state.accepted:
            if error.error.code != "unknown_job":  # which is how a cancel that came after the end is answered
                yield error
            return
        self._drop_bulk(str(error.job))
        job.state.ended = True
        del self._jobs[str(error.job)]
        yield Cancelled(str(error.job)) if job.cancelled and error.error.code == "unknown_job" else error

    def _drop_bulk(self, job: str) -> None:
        self._bulk = deque(item for item in self._bulk if item[0] != job)

    def _is_running(self, job: str) -> bool:
        return job in self._jobs and not self._jobs[job].state.ended

    def _follow(self, message: Record) -> Iterator[Event]:
        seq, name = message.seq, message.job  # type: ignore[attr-defined]
        if seq <= self.last_seq:
            return  # It came before the connection was lost.
        self.last_seq = seq
        if name in self._acknowledged:
            return
        if name not in self._jobs:
            raise OutOfOrder("the server speaks of a job that is not running")
        job = self._jobs[name]
        job.state.apply(message)
        if isinstance(message, Result):
            self._fetch(message)
        elif not job.held:
            yield self._told(job, message)
            return
        job.held.append(message)
        yield from self._release(job)

    @staticmethod
    def _told(job: _Job, message: Record) -> Record:
        """The message, which goes to the program now. With the end, the pixels of the request may go."""
        if isinstance(message, TERMINAL):
            job.tiles = {}
        return message

    def _fetch(self, result: Result) -> None:
        """Ask for the tiles of a result that are not on their way already."""
        wanted = [name for name in dict.fromkeys(result.image.tiles) if name not in self._arriving]
        self._arriving.update(dict.fromkeys(wanted))
        if wanted:
            self._control.append(Fetch(result.job, tuple(wanted)))

    def _take(self, tile: Tile) -> Iterator[Event]:
        if tile.name not in self._arriving:
            return  # Nobody waits for it any more.
        data = decode(tile.encoding, tile.data, tile.size)
        if name_of(data) != tile.name:
            raise TileError("its content does not match its name")
        self._arriving[tile.name] = data
        for job in self._jobs.values():
            if job.held:
                yield from self._release(job)

    def _release(self, job: _Job) -> Iterator[Event]:
        """Give out what was held back, up to the first picture that is not complete."""
        while job.held:
            first = job.held[0]
            if isinstance(first, Result):
                if any(self._arriving.get(name) is None for name in first.image.tiles):
                    return
                job.held.popleft()
                yield self._picture(first)
            else:
                job.held.popleft()
                yield self._told(job, first)

    def _picture(self, result: Result) -> Picture:
        image = result.image
        tiles = {name: data for name in image.tiles if (data := self._arriving[name]) is not None}
        pixels = pixels_of(image, tiles)
        self._let_go(image.tiles)
        return Picture(
            result.job, result.index, result.seed, image.width, image.height, pixels, image.x, image.y, image.depth
        )

    def _let_go(self, names: Sequence[bytes]) -> None:
        """Drop tiles that no other result waits for."""
        needed: Set[bytes] = set()
        for job in self._jobs.values():
            for held in job.held:
                if isinstance(held, Result):
                    needed.update(held.image.tiles)
        for name in set(names) - needed:
            del self._arriving[name]


def preferred_encodings(local: bool) -> List[str]:
    """What a client should ask for: raw pixels on its own machine, compressed ones over a network."""
    return list(ENCODINGS) if local else list(reversed(ENCODINGS))
