"""One client: its messages come in here and are answered, its outbox is emptied here."""

from __future__ import annotations

import asyncio
import logging
from functools import singledispatchmethod

from underpaint_protocol import __version__
from underpaint_protocol.blobs import BlobStore
from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.exceptions import InvalidField, OutOfOrder, ProtocolError
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    TERMINAL,
    BlobChunk,
    Cancel,
    Error,
    Hello,
    Limits,
    Request,
    Submit,
    Welcome,
    vocabulary,
)
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from .admission import refuse
from .hosts import Host
from .outbox import Outbox, Overflow
from .queue import Job, JobQueue

log = logging.getLogger(__name__)

HELLO_TIMEOUT = 10.0
SERVER = f"underpaint {__version__}"


class Connection:
    """A client that came through the gate. It owns the jobs that it submits."""

    def __init__(self, socket: ServerConnection, host: Host, queue: JobQueue, limits: Limits) -> None:
        self.outbox = Outbox()
        self._socket = socket
        self._host = host
        self._queue = queue
        self._limits = limits
        self._blobs = BlobStore(limits.max_blob_bytes)
        self._jobs: dict[str, Job] = {}
        self._greeted = False

    async def serve(self) -> None:
        """Talk to the client until it goes away; its jobs are cancelled then."""
        sender = asyncio.create_task(self._send())
        try:
            await self._receive()
        except ConnectionClosed:
            pass
        except TimeoutError:
            await self._socket.close(1008, "no hello came")
        finally:
            sender.cancel()
            for job in list(self._jobs.values()):
                self._queue.cancel(job)

    async def _receive(self) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT) as patience:
            async for data in self._socket:
                self._answer(data)
                if self._greeted:
                    patience.reschedule(None)

    def _answer(self, data: str | bytes) -> None:
        try:
            if isinstance(data, str):
                raise ProtocolError("a text frame came; messages are binary")
            message = vocabulary.decode(data)
            if not self._greeted and not isinstance(message, Hello):
                raise OutOfOrder("the first message must be “hello”")
            self.answer(message)
        except ProtocolError as error:
            job = error.job if isinstance(error, InvalidField) else None
            self.put(Error(describe(error.code, detail=error), job))

    def announce(self, message: Record) -> None:
        """Tell the client something that concerns no job; nothing before it said hello."""
        if self._greeted:
            self.put(message)

    def put(self, message: Record) -> None:
        """Queue a message for the client; one who reads too slowly is disconnected."""
        try:
            self.outbox.put(message)
        except Overflow as overflow:
            log.warning("a client reads too slowly: %s", overflow)
            self._socket.transport.abort()

    def _deliver(self, message: Record) -> None:
        """Pass on a message of one of this client's jobs."""
        if isinstance(message, TERMINAL):
            self._jobs.pop(message.job, None)
        self.put(message)

    async def _send(self) -> None:
        try:
            while True:
                await self._socket.send(vocabulary.encode(await self.outbox.get()))
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("nothing more can be sent to a client")
            self._socket.transport.abort()

    @singledispatchmethod
    def answer(self, message: Record) -> None:
        """Answer one message of the client; a new message is one more function registered below."""
        raise OutOfOrder(f"a “{vocabulary.name_of(message)}” does not come from a client")

    @answer.register
    def _greet(self, hello: Hello) -> None:
        if self._greeted:
            raise OutOfOrder("“hello” came twice")
        self._greeted = True
        log.info("hello from %r", hello.client)
        self.put(Welcome(SERVER, self._host.worker, self._host.models(), self._limits))

    @answer.register
    def _store(self, chunk: BlobChunk) -> None:
        self._blobs.add(chunk)

    @answer.register
    def _submit(self, submit: Submit) -> None:
        reason = self._reason_to_refuse(submit)
        if reason is not None:
            return self.put(Error(reason, submit.job))
        blobs = self._collect(submit.request)
        if blobs is None:
            return self.put(Error(describe("missing_pixels", detail="its blobs were not sent"), submit.job))
        job = self._jobs[submit.job] = Job(submit, blobs, self._deliver)
        if not self._queue.submit(job):
            del self._jobs[submit.job]
            self.put(Error(describe("shutting_down"), submit.job))
        return None

    @answer.register
    def _cancel(self, cancel: Cancel) -> None:
        job = self._jobs.get(cancel.job)
        if job is None:
            self.put(Error(describe("unknown_job"), cancel.job))
        else:
            self._queue.cancel(job)

    def _reason_to_refuse(self, submit: Submit) -> ErrorInfo | None:
        if submit.job in self._jobs:
            return describe("duplicate_job")
        waiting = [image for job in self._jobs.values() for image in job.submit.request.images]
        held = sum(image.size for image in (*waiting, *submit.request.images))
        if len(self._jobs) >= self._limits.max_jobs or held > self._limits.max_blob_bytes:
            return describe("too_many_jobs", detail=len(self._jobs))
        models = {model.id: model for model in self._host.models()}
        return refuse(submit.request, models, self._limits)

    def _collect(self, request: Request) -> list[BlobChunk] | None:
        """The chunks of all blobs that a request names; None if one is missing or has another size."""
        collected: list[BlobChunk] = []
        for image in request.images:
            pieces = self._blobs.pieces(image.blob)
            if pieces is None or pieces[0].size != image.size:
                return None
            collected += pieces
        return collected
