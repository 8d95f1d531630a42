"""One client: its messages come in here and are answered, and what is to be told to it goes out here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatchmethod

from underpaint_protocol import __version__
from underpaint_protocol.encodings import ENCODINGS
from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.exceptions import InvalidField, OutOfOrder, ProtocolError, TileError
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    MAX_JOBS,
    MAX_TILES,
    RESUMED_ELSEWHERE,
    TOO_SLOW,
    Acknowledge,
    Cancel,
    Error,
    Fetch,
    Have,
    Hello,
    Limits,
    Missing,
    Model,
    Pull,
    Pulling,
    Request,
    Resume,
    Resumed,
    Submit,
    Tile,
    Welcome,
    vocabulary,
)
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from .access.owners import OWNER, Owner
from .admission import refuse, refuse_now, work_of
from .book import Book, today
from .hosts import Host
from .intake import Intake
from .journal import JournalError
from .outbox import Outbox, TileWanted
from .pixels import Found, MissingTile
from .pulls import Pulls
from .queue import JobQueue
from .sessions import Job, Session
from .tiles import DiskFull, StoreFull
from .uploads import Uploads

log = logging.getLogger(__name__)

HELLO_TIMEOUT = 10.0
LAST_WORDS = 1.0
"""Seconds for which a client that does not read may still read why it is cut off."""
NEED_TILES = (Have, Resume, Submit)
"""What is answered only once the tiles that came before are stored. All else, such as `cancel`, goes ahead of them."""
SERVER = f"underpaint {__version__}"


@dataclass(frozen=True)
class House:
    """What all connections share."""

    host: Host
    queue: JobQueue
    book: Book
    pulls: Pulls
    log_prompts: bool = False
    uploads: Uploads = field(default_factory=Uploads)


class Connection:
    """A client that came through the gate."""

    def __init__(self, socket: ServerConnection, owner: Owner, limits: Limits, house: House) -> None:
        self.outbox = Outbox(self._taken_over)
        self.owner = owner.name
        self.digest = owner.digest
        """Of the token that opened it."""
        self._socket = socket
        self._limits = limits
        self._house = house
        self._book = house.book
        self._encoding = "raw"
        self._session: Session | None = None
        self._farewell: asyncio.Task[None] | None = None
        self._intake = Intake(house.book.pixels, self._refuse_tile)

    async def serve(self) -> None:
        """Talk to the client until it goes away. Its jobs go on without it."""
        sender = asyncio.create_task(self._send())
        try:
            await self._receive()
        except ConnectionClosed:
            pass
        except TimeoutError:
            await self._socket.close(1008, "no hello came")
        finally:
            sender.cancel()
            if self._session is not None and self._session.outbox is self.outbox:
                self._book.leave(self._session)

    async def close(self, code: int, reason: str) -> None:
        """End the connection with a reason."""
        await self._socket.close(code, reason)

    def _taken_over(self) -> None:
        self._farewell = asyncio.create_task(self.close(RESUMED_ELSEWHERE, "another connection resumed the session"))

    def announce(self, message: Record) -> None:
        """Tell the client something that concerns no job; nothing before it said hello."""
        if self._session is None:
            return
        if isinstance(message, Pulling):
            self.outbox.show(message)
        else:
            self.outbox.put(message)

    @property
    def may_fetch(self) -> bool:
        """Whether models are fetched for this client. It costs the daemon's machine its disk, so few may."""
        return self.owner == OWNER

    # What comes in

    async def _receive(self) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT) as patience:
            async for data in self._socket:
                if self._farewell is not None:
                    # What is late on this line was said again on the newer one. A `submit` among it would begin a job
                    # anew that the client has acknowledged since.
                    await self._farewell
                    return
                await self._answer(data)
                await asyncio.sleep(0)  # Others have their turn, also while more frames are here already.
                await self.outbox.room()
                if self._session is not None:
                    patience.reschedule(None)

    async def _answer(self, data: str | bytes) -> None:
        try:
            if isinstance(data, str):
                raise ProtocolError("a text frame came; messages are binary")
            message = vocabulary.decode(data)
            if self._session is None and not isinstance(message, Hello):
                raise OutOfOrder("the first message must be “hello”")
            if isinstance(message, NEED_TILES):
                await self._intake.settled()
            if self._farewell is None:  # It may have come while this waited.
                await self.answer(message)
        except ProtocolError as error:
            job = error.job if isinstance(error, InvalidField) else None
            self._refuse(job, error.code, detail=error)

    def _refuse(self, job: str | None, code: str, **places: object) -> None:
        self.outbox.put(Error(describe(code, **places), job))

    @property
    def session(self) -> Session:
        """The conversation that this connection carries, once it has greeted."""
        assert self._session is not None
        return self._session

    @singledispatchmethod
    async def answer(self, message: Record) -> None:
        """Answer one message of the client; a new message is one more function registered below."""
        raise OutOfOrder(f"a “{vocabulary.name_of(message)}” does not come from a client")

    @answer.register
    async def _greet(self, hello: Hello) -> None:
        if self._session is not None:
            raise OutOfOrder("“hello” came twice")
        self._session = self._book.new_session(self.owner, hello.client)
        self._encoding = next((name for name in hello.encodings if name in ENCODINGS), "raw")
        log.info("hello from %r of %s", hello.client, self.owner)
        host = self._house.host
        self.outbox.put(Welcome(SERVER, self._session.id, host.worker, host.models(), self._limits))
        self.outbox.follow(self._session, 0)
        if self.may_fetch:
            for pulling in self._house.pulls.current:
                self.announce(pulling)

    @answer.register
    async def _resume(self, resume: Resume) -> None:
        if self.session.jobs:
            raise OutOfOrder("“resume” comes before the first job")
        earlier = self._book.find(resume.session, self.owner)
        if earlier is None:
            return self._refuse(None, "unknown_session")
        fresh, self._session = self.session, earlier
        if fresh is not earlier:
            self._book.leave(fresh)
        self.outbox.put(Resumed(earlier.id, tuple(earlier.jobs)))
        self.outbox.follow(earlier, resume.last_seq)
        return None

    @answer.register
    async def _have(self, have: Have) -> None:
        self.outbox.put(Missing(tuple(self._book.pixels.missing(have.tiles)), query=have.query))

    @answer.register
    async def _store(self, tile: Tile) -> None:
        seconds = self._house.uploads.seconds_until_more(self.owner, tile, self._limits)
        if seconds:
            self._refuse(None, "too_many_uploads", detail=seconds)
        else:
            await self._intake.put(tile)

    def _refuse_tile(self, error: TileError | StoreFull) -> None:
        if isinstance(error, DiskFull):
            self._refuse(None, "daemon_disk_full")
        elif isinstance(error, StoreFull):  # A job that needs the tile makes room for it, or is refused.
            log.debug("%r: there is no room for a tile; it is asked for again", self._session)
        else:
            self._refuse(None, error.code, detail=error)

    @answer.register
    async def _submit(self, submit: Submit) -> None:
        known = self.session.jobs.get(submit.job)
        if known is None:
            await self._submit_new(submit)
        elif known.submit.request == submit.request:
            await self._supersede(submit)
        else:
            self._refuse(submit.job, "duplicate_job")

    @answer.register
    async def _cancel(self, cancel: Cancel) -> None:
        job = self.session.jobs.get(cancel.job)
        if job is None or job.state.ended:
            self._refuse(cancel.job, "unknown_job")
        else:
            await self._house.queue.cancel(job)

    @answer.register
    async def _fetch(self, fetch: Fetch) -> None:
        job = self.session.jobs.get(fetch.job)
        if job is None or not job.result_tiles.issuperset(fetch.tiles):
            self._refuse(fetch.job, "unknown_job")
        else:
            self.outbox.send_tiles(job.id, fetch.tiles)

    @answer.register
    async def _acknowledge(self, acknowledge: Acknowledge) -> None:
        job = self.session.jobs.get(acknowledge.job)
        if job is not None and job.state.ended:
            self._book.forget(job)

    # Models

    @answer.register
    async def _pull(self, pull: Pull) -> None:
        model = next((model for model in self._house.host.models() if model.id == pull.model), None)
        if not self.may_fetch:
            self._refuse(None, "may_not_fetch", model=pull.model)
        elif model is None:
            self._refuse(None, "unknown_model", detail=pull.model)
        elif pull.stop:
            if not self._house.pulls.stop(model.id):
                self.announce(Pulling(model.id, 0, max(1, model.download), stopped=True))
        elif self._house.queue.draining:
            self._refuse(None, "shutting_down")
        elif model.state == "unfit":
            self._refuse(None, "model_unfit", model=model.name, detail=model.detail)
        elif model.state == "ready":
            total = max(1, model.download)
            self.announce(Pulling(model.id, total, total))
        else:
            self.announce(self._house.pulls.pull(model))

    # A submit

    async def _submit_new(self, submit: Submit) -> None:
        """Accept a job, or say why not, or which tiles it lacks."""
        reason = self._reason_to_refuse(submit.request)
        while reason is None:
            found = await self._book.pixels.look(submit.request.images)
            if self._farewell is not None:
                return  # The session lives elsewhere now, and may have been told there to do this job.
            # Others of this token submit at the same time. From here on nothing is awaited until the job counts.
            reason = self._reason_to_refuse(submit.request) or self._reason_in(found, submit.request)
            if reason is not None:
                break
            leaving = self._book.find_room(self.owner, found, submit.request, self._superseded_by(submit))
            if leaving is None:
                reason = describe("storage_full")
                break
            if found.missing:
                self._book.make_way(leaving)  # For its pictures too: others, who need room as well, send meanwhile.
                self.outbox.put(Missing(tuple(found.missing[:MAX_TILES]), job=submit.job))
                return
            with contextlib.suppress(MissingTile):  # It went between the two.
                await self._accept(submit)
                return
        self.outbox.put(Error(reason, submit.job))

    def _reason_to_refuse(self, request: Request) -> ErrorInfo | None:
        """Why a job cannot be done here and now, whatever becomes of its tiles."""
        if self._house.queue.draining:
            return describe("shutting_down")
        models = self._models()
        reason = refuse(request, models, self._limits)
        if reason is not None:
            return reason
        work, used = work_of(request, models[request.model]), self._book.usage[self.owner, today()]
        reason = refuse_now(request, self._book.unended(self.owner), work, used, self._limits)
        if reason is None and len(self.session.jobs) >= MAX_JOBS:
            reason = describe("too_many_jobs", detail=len(self.session.jobs))
        return reason

    def _reason_in(self, found: Found, request: Request) -> ErrorInfo | None:
        """Why a job can never be done with what there is of its tiles, and of room."""
        if not found.fit:
            return describe("bad_tile", detail="a tile has another size than its place in the picture")
        if not self._book.could_hold(found, request):
            return describe("too_many_pixels", detail="with its picture it has no room in what the daemon keeps")
        return None

    def _models(self) -> Mapping[str, Model]:
        return {model.id: model for model in self._house.host.models()}

    async def _accept(self, submit: Submit) -> None:
        """Raises `MissingTile` if a tile is not here."""
        work = work_of(submit.request, self._models()[submit.request.model])
        place = self._house.queue.place_of(Job(self.session, submit))
        try:
            job = await self._book.accept(self.session, submit, place, work)
        except JournalError as error:
            # Another connection may have resumed the session meanwhile, and been told of the job.
            listener = self.session.outbox or self.outbox
            listener.put(Error(describe(error.code, detail=error.detail), submit.job))
            return
        self._house.uploads.used_by_a_job(self.owner, job.tiles)
        if self._house.log_prompts:
            log.info("the job %s: %r", job.id, submit.request.prompt)
        await self._house.queue.add(job)
        await self._supersede(submit)

    async def _supersede(self, submit: Submit) -> None:
        older = self._superseded_by(submit)
        if older is not None:
            await self._house.queue.cancel(older)

    def _superseded_by(self, submit: Submit) -> Job | None:
        """The job that is to end when this one is accepted."""
        older = self.session.jobs.get(submit.supersedes or "")
        return None if older is None or older.state.ended else older

    # What goes out

    async def _send(self) -> None:
        try:
            while True:
                await self._send_in_time(await self._frame(await self.outbox.next()))
        except ConnectionClosed:
            pass
        except TimeoutError:
            log.warning("%r does not read; it is cut off, and what it missed waits for it", self._session)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.close(TOO_SLOW, "nothing was read for too long"), LAST_WORDS)
            self._socket.transport.abort()
        except Exception:
            log.exception("nothing more can be sent to a client")
            self._socket.transport.abort()
        finally:
            self.outbox.close()  # or the other half would wait for room forever

    async def _send_in_time(self, frame: bytes) -> None:
        async with asyncio.timeout(self._limits.stall_seconds):
            await self._socket.send(frame)

    async def _frame(self, message: Record | TileWanted) -> bytes:
        if isinstance(message, TileWanted):
            tile = await self._book.pixels.packed(message.name, self._encoding)
            lost = describe("missing_pixels", detail="it was lost on the daemon's disk")
            return vocabulary.encode(tile or Error(lost, message.job))
        return vocabulary.encode(message)
