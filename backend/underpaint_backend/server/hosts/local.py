"""The default host: one worker process on this machine, driven over its standard input and output.

The worker is started in the background, so that the server answers at once, and again whenever it dies. A job that it
was running then fails with the reason. The worker ends by itself when its input closes, so that it cannot outlive a
server that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import MalformedMessage, ProtocolError
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import TERMINAL, Cancel, Cancelled, Failed, Model, Submit, Tile, Worker

from ...models.catalog import default_roots
from ...models.fitness import Choice, Room
from ...worker.interface import HEADER, MAX_FRAME, Memory, MemoryQuery, Ready, Unusable, frame, vocabulary
from ..pulls import Progress
from .backlog import Backlog
from .shelf import Shelf, room_for_weights

log = logging.getLogger(__name__)

GRACE = 3.0
"""Seconds that a worker gets to end by itself before it is killed."""

CANCEL_PATIENCE = 30.0
"""Seconds that a worker gets to end a job that was cancelled; one that hangs is killed."""

READ_AHEAD = 256 << 10
"""Half the bytes that are read from a worker before they are asked for."""

MAX_FAILED_STARTS = 3
"""Workers that may die before they were ready, one after another, before the host gives up."""


@dataclass(frozen=True)
class LocalOptions:
    """How the worker is started: its device, its number of threads (None: torch decides), and more model folders.

    `memory_gib` bounds what models take on the device (None: what is there); `precision` and `offload` are how they are
    kept there, in the words of `worker.interface`.
    """

    device: str = "auto"
    threads: int | None = None
    model_roots: Sequence[Path] = ()
    memory_gib: float | None = None
    precision: str = "auto"
    offload: str = "auto"


class _Run:
    """The job that the worker is running, and how far its messages have come.

    Everything goes to `process` and is heard from it alone: if it dies, the next one knows nothing of this job.
    """

    def __init__(self, job: str) -> None:
        self.job = job
        self.process: Process | None = None
        self.submitted = False
        self.cancel_wanted = False
        self.heard = Backlog()


class LocalHost:
    """Runs jobs in one subprocess; implements `Host`."""

    capacity = 1

    def __init__(self, options: LocalOptions) -> None:
        roots = (*default_roots(), *options.model_roots)
        limit = None if options.memory_gib is None else int(options.memory_gib * (1 << 30))
        self._shelf = Shelf(roots, Choice(options.precision, options.offload, limit))
        self._room: Room | None = None
        self._command = _command(options, roots)
        self._worker = Worker("starting")
        self._unusable = ""
        """Why the last worker could not open its device."""
        self._worked = False
        self._on_change: Callable[[Worker], None] = lambda worker: None
        self._changed = asyncio.Event()
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._run: _Run | None = None
        self._memory: asyncio.Future[Memory | None] | None = None

    def models(self) -> tuple[Model, ...]:
        return self._shelf.models

    async def refresh(self) -> None:
        if self._room is None:
            with contextlib.suppress(TimeoutError):  # The worker hangs; it is asked again the next time.
                memory = await asyncio.wait_for(self.free_memory(), GRACE)
                self._room = room_for_weights(self._worker.device, memory)
        await asyncio.to_thread(self._shelf.look, self._room)

    def fetch(self, model: str, on_progress: Callable[[Progress], None], left_off: threading.Event) -> bool:
        return self._shelf.fetch(model, on_progress, left_off)

    @property
    def worker(self) -> Worker:
        return self._worker

    async def try_out(self) -> str:
        """Start the worker before anybody listens; "" once it can paint, or why it never will."""
        await self.start(lambda worker: None)
        while self._worker.state not in ("ready", "failed"):
            self._changed.clear()
            await self._changed.wait()
        return self._worker.detail if self._worker.state == "failed" else ""

    async def start(self, on_change: Callable[[Worker], None]) -> None:
        self._on_change = on_change
        if self._supervisor is not None:  # it was tried out
            on_change(self._worker)
            return
        self._supervisor = asyncio.create_task(self._supervise())

    async def run(self, submit: Submit, tiles: AsyncIterable[Tile]) -> AsyncGenerator[Record]:
        run = self._run = _Run(submit.job)
        ended = False
        try:
            early = await self._wait_ready(run)
            if early is not None:
                yield early
                return
            process = run.process = self._process
            assert process is not None
            async for tile in tiles:
                await _send(process, tile)
                if run.heard:  # the worker is gone
                    break
            else:
                await _send(process, submit)
                run.submitted = True
                if run.cancel_wanted:
                    self.cancel(run.job)
            while not ended:
                message = await run.heard.take()
                ended = isinstance(message, TERMINAL)
                yield message
        finally:
            if run.submitted and not ended:
                await self._abandon(run)
            run.heard.leave()
            self._run = None

    def cancel(self, job: str) -> None:
        run = self._run
        if run is None or run.job != job:
            return
        run.cancel_wanted = True
        self._changed.set()
        if run.process is None:
            return
        if run.submitted and run.process.stdin is not None:
            run.process.stdin.write(frame(Cancel(job)))
        # Also while the pixels travel: a worker that hangs does not take them.
        asyncio.get_running_loop().call_later(CANCEL_PATIENCE, self._kill_if_it_hangs, run)

    async def free_memory(self) -> Memory | None:
        if self._worker.state != "ready":
            return None
        if self._memory is None or self._memory.done():
            self._memory = asyncio.get_running_loop().create_future()
            assert self._process is not None
            await _send(self._process, MemoryQuery())
        return await asyncio.shield(self._memory)

    async def close(self) -> None:
        self._shelf.close()
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        self._end_what_waits("shutting_down")
        if self._process is not None:
            await _stop(self._process)

    async def _supervise(self) -> None:
        failed_starts = 0
        while failed_starts < MAX_FAILED_STARTS:
            self._unusable = ""
            reason = await self._one_worker()
            failed_starts = 0 if self._worker.state == "ready" else failed_starts + 1
            if self._unusable:
                reason = self._unusable
                failed_starts = failed_starts if self._worked else MAX_FAILED_STARTS
            log.error("the worker ended: %s", reason)
            state = "restarting" if failed_starts < MAX_FAILED_STARTS else "failed"
            self._change(Worker(state, detail=reason))
            self._end_what_waits("worker_died", detail=reason)

    async def _one_worker(self) -> str:
        """Start a worker and listen to it until it is gone; returns why it went."""
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, limit=READ_AHEAD
            )
        except OSError as error:  # for lack of memory, say
            return f"it could not be started: {error.strerror or error}"
        log.info("the worker starts as process %d", process.pid)
        await self._listen(process)
        await _stop(process)
        return _reason(process.returncode)

    async def _listen(self, process: Process) -> None:
        """Take the worker's messages until it ends or breaks the language."""
        stream = process.stdout
        assert stream is not None
        try:
            while True:
                (length,) = HEADER.unpack(await stream.readexactly(HEADER.size))
                if length > MAX_FRAME:
                    raise MalformedMessage(f"a message of {length} bytes was announced")
                await self._take(process, vocabulary.decode(await stream.readexactly(length)), length)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except ProtocolError:
            log.exception("the worker sent something that is no message")

    async def _take(self, process: Process, message: Record, size: int) -> None:
        """Hear a message of so many bytes. A worker whose pictures cannot be stored as fast has to wait."""
        if isinstance(message, Ready):
            self._worked = True
            self._change(Worker("ready", device=message.device))
        elif isinstance(message, Unusable):
            self._unusable = message.detail
        elif isinstance(message, Memory):
            if self._memory is not None and not self._memory.done():
                self._memory.set_result(message)
        elif self._is_of_the_run(process, message):
            assert self._run is not None
            await self._run.heard.put(message, size)

    def _is_of_the_run(self, process: Process, message: Record) -> bool:
        """Whether it belongs to the job of now; tiles bear no job's name."""
        run = self._run
        return run is not None and run.process is process and getattr(message, "job", None) in (None, run.job)

    def _end_what_waits(self, code: str, **places: object) -> None:
        """The worker is gone: the job that it had fails, and nobody waits for its memory."""
        if self._run is not None and self._run.process is not None:
            self._run.heard.end(Failed(self._run.job, describe(code, **places)))
        if self._memory is not None and not self._memory.done():
            self._memory.set_result(None)

    def _change(self, worker: Worker) -> None:
        self._worker = worker
        self._on_change(worker)
        self._changed.set()

    async def _wait_ready(self, run: _Run) -> Cancelled | Failed | None:
        """Wait until the worker can take a job; if it never will, or the job is cancelled first, how the job ends."""
        while self._worker.state not in ("ready", "failed") and not run.cancel_wanted:
            self._changed.clear()
            await self._changed.wait()
        if run.cancel_wanted:
            return Cancelled(run.job)
        if self._worker.state == "failed":
            return Failed(run.job, describe("worker_unavailable", detail=self._worker.detail))
        return None

    async def _abandon(self, run: _Run) -> None:
        """Nobody follows this job any more: stop it, and see it end, so that it cannot speak into the next one."""
        assert run.process is not None
        try:
            async with asyncio.timeout(GRACE):
                await _send(run.process, Cancel(run.job))
                await run.heard.drop()
        except TimeoutError:
            _kill(run.process)
            await run.heard.drop()  # or the next job would be given to a worker that is about to go

    def _kill_if_it_hangs(self, run: _Run) -> None:
        if self._run is not run or run.process is None:
            return
        if run.heard:  # it is the worker that waits for us
            asyncio.get_running_loop().call_later(CANCEL_PATIENCE, self._kill_if_it_hangs, run)
        else:
            log.error("the worker does not end the job %s; it is killed", run.job)
            _kill(run.process)


async def _send(process: Process, *messages: Record) -> None:
    """Write messages to a worker. If it is gone, its supervisor says so; nothing is raised here."""
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        for message in messages:
            process.stdin.write(frame(message))
            await process.stdin.drain()


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _command(options: LocalOptions, roots: Sequence[Path]) -> list[str]:
    command = [sys.executable, "-P", "-m", "underpaint_backend.worker", "--device", options.device]
    command += ["--precision", options.precision, "--offload", options.offload]
    if options.memory_gib is not None:
        command += ["--memory-gib", str(options.memory_gib)]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    for root in roots:
        command += ["--models", str(root)]
    return command


async def _stop(process: Process) -> None:
    """End a worker: its input is closed, and if that is not enough, it is killed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    rest = asyncio.create_task(_drop(process.stdout))  # asyncio sees its end only once all was read
    try:
        await asyncio.wait_for(process.wait(), GRACE)
    except TimeoutError:
        _kill(process)
        await process.wait()
    finally:
        rest.cancel()


async def _drop(stream: asyncio.StreamReader) -> None:
    while await stream.read(READ_AHEAD):
        pass


def _reason(returncode: int | None) -> str:
    """Why a process ended, in words."""
    if returncode is None or returncode >= 0:
        return f"exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:  # a real-time signal
        return f"signal {-returncode}"
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name
