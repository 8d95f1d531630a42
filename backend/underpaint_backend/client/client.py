"""What a program does with a daemon: submit jobs and iterate over their events, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl as tls
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

from underpaint_protocol.client import ClientSession, Event, Picture, preferred_encodings
from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.locations import DEFAULT_PORT, token_file
from underpaint_protocol.messages import TERMINAL, Cancelled, Error, Failed, Pulling, Request, Status, Welcome, Worker
from underpaint_protocol.pulls import REFUSALS, is_over

from .dialing import Address, Refused, is_local
from .line import Line
from .mailbox import Mailbox

LOCAL = f"ws://127.0.0.1:{DEFAULT_PORT}"
FLUSH_SECONDS = 2.0
"""How long the end of a program may wait for its last words to be sent."""

log = logging.getLogger("underpaint")


class Client:
    """A conversation with a daemon; made by `connect`. Use it from the event loop that made it."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._line: Line | None = None
        self._mailboxes: dict[str, Mailbox] = {}
        self._pulls: dict[str, Mailbox] = {}
        self._generating: set[str] = set()
        self._abandoned: set[str] = set()
        self._ended: ErrorInfo | None = None
        self._worker: Worker | None = None

    @property
    def session(self) -> str:
        """The id under which `connect(session=...)` finds this session's jobs again, also in another process."""
        assert self._session.session is not None
        return self._session.session

    @property
    def welcome(self) -> Welcome:
        """What the daemon said last of its models and limits."""
        assert self._session.welcome is not None
        return self._session.welcome

    @property
    def worker(self) -> Worker:
        """How the process that paints is, as far as it is known."""
        return self._worker or self.welcome.worker

    @property
    def open(self) -> Sequence[str]:
        """Ids of the session's jobs that were not acknowledged, those of an earlier process included."""
        return self._session.open

    def submit(
        self,
        request: Request,
        tiles: Mapping[bytes, bytes] | None = None,
        *,
        job: str | None = None,
        previews: bool = True,
        supersedes: str | None = None,
    ) -> str:
        """Submit a job and return its id, to be given to `follow`; `tiles` are those that `request` names.

        The job survives this program only from its `Accepted` on: before, it is on its way, or waits for a connection.
        `supersedes` is an older job of this session that is cancelled once this one is accepted. Raises `Refused` if
        the conversation is over, `OutOfOrder` for an id that was used, and `TileError` for a tile that is not given.
        """
        self._insist()
        job = job or uuid.uuid4().hex
        self._session.submit(job, request, tiles, previews=previews, supersedes=supersedes)
        self._mailboxes[job] = Mailbox()
        self._wake()
        return job

    async def generate(
        self,
        request: Request,
        tiles: Mapping[bytes, bytes] | None = None,
        *,
        job: str | None = None,
        previews: bool = True,
        supersedes: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Submit a job and yield its events; the last one is terminal, or the `Error` that refused it.

        Whoever leaves after the terminal event, by `break` or by asking for more, acknowledges the job, and the daemon
        forgets it. Whoever leaves before has it cancelled. Raises as `submit` does, and `Refused` if the connection is
        lost for good.
        """
        job = self.submit(request, tiles, job=job, previews=previews, supersedes=supersedes)
        self._generating.add(job)
        try:
            async for event in self.follow(job):
                yield event
        finally:
            self._abandon(job)

    async def follow(self, job: str) -> AsyncGenerator[Event, None]:
        """Yield the events of an open job that nobody has taken yet; otherwise like `generate`, but whoever leaves
        leaves the job alone.

        Raises `Refused` if there is no such job.
        """
        mailbox = self._mailboxes.get(job)
        if mailbox is None:
            raise Refused(describe("unknown_job"))
        while True:
            event = await mailbox.take()
            yield event
            if isinstance(event, (*TERMINAL, Error)) and job not in self._session.running:
                self.acknowledge(job)
                return

    async def paint(
        self,
        request: Request,
        tiles: Mapping[bytes, bytes] | None = None,
        *,
        watch: Callable[[Event], object] = lambda event: None,
    ) -> list[Picture]:
        """The finished pictures of a request; `watch` is shown each event on the way.

        Raises `Refused` if the job is refused, fails or is cancelled, and as `generate` does.
        """
        pictures = []
        async with contextlib.aclosing(self.generate(request, tiles)) as events:
            async for event in events:
                watch(event)
                if isinstance(event, Picture):
                    pictures.append(event)
                elif isinstance(event, (Failed, Error)):
                    raise Refused(event.error)
                elif isinstance(event, Cancelled):
                    raise Refused(describe("unknown_job"))
        return pictures

    async def pull(self, model: str) -> AsyncGenerator[Pulling, None]:
        """Have the daemon fetch a model, and yield how far it is; the last one is its end, with an error perhaps.

        Whoever leaves before leaves the download alone, as `stop_pull` does not. Raises `Refused` if this token may not
        fetch models, if there is no such model, and if the connection is lost for good.
        """
        self._insist()
        mailbox = self._pulls[model] = Mailbox()
        self._session.pull(model)
        self._wake()
        try:
            while True:
                news = await mailbox.take()
                if isinstance(news, Error):
                    raise Refused(news.error)
                assert isinstance(news, Pulling)
                yield news
                if is_over(news):
                    return
        finally:
            self._pulls.pop(model, None)

    def stop_pull(self, model: str) -> None:
        """Have the daemon leave off fetching a model, which ends its `pull`; what came is kept."""
        self._session.pull(model, stop=True)
        self._wake()

    async def cancel(self, job: str) -> None:
        """Ask to stop a job, which still ends with its events; nothing happens to one that has ended."""
        self._session.cancel(job)
        self._wake()

    def acknowledge(self, job: str) -> None:
        """Let the daemon forget a job whose pictures are safe. Raises `OutOfOrder` if it has not ended."""
        self._session.acknowledge(job)
        self._mailboxes.pop(job, None)
        self._wake()

    def _abandon(self, job: str) -> None:
        """Nobody follows this job any more: it is cancelled, or acknowledged if its end was seen."""
        self._generating.discard(job)
        mailbox = self._mailboxes.get(job)
        if job in self._session.running:
            self._abandoned.add(job)
            self._session.cancel(job)
            self._wake()
        elif mailbox is not None and mailbox.is_empty:
            self.acknowledge(job)

    def _insist(self) -> None:
        if self._ended is not None:
            raise Refused(self._ended)

    def _wake(self) -> None:
        if self._line is not None:
            self._line.wake()

    def _deliver(self, event: Event) -> None:
        """Take an event of the protocol's core."""
        job: str | None = getattr(event, "job", None)
        if isinstance(event, Status):
            self._worker = event.worker
        elif isinstance(event, Pulling):
            if event.model in self._pulls:
                self._pulls[event.model].put(event)
        elif isinstance(event, Error) and job is None and event.error.code in REFUSALS and self._pulls:
            for mailbox in self._pulls.values():
                mailbox.put(event)
        elif job in self._abandoned:
            self._let_go(job, event)
        elif isinstance(event, Error) and job not in self._mailboxes:
            log.warning("the daemon objects: %s", event.error.message)
        elif job is not None:
            self._mailboxes.setdefault(job, Mailbox()).put(event)

    def _let_go(self, job: str, event: Event) -> None:
        """A job that its program left is acknowledged when it ends."""
        if isinstance(event, (*TERMINAL, Error)) and job not in self._session.running:
            self._abandoned.discard(job)
            self.acknowledge(job)

    def _end(self, error: ErrorInfo) -> None:
        self._ended = error
        for mailbox in (*self._mailboxes.values(), *self._pulls.values()):
            mailbox.close(error)

    async def _keep(self, line: Line) -> None:
        """Hold the line until it breaks for good."""
        self._line = line
        try:
            self._end(await line.keep())
        except Exception:
            log.exception("the connection to the daemon failed")
            self._end(describe("internal"))

    async def _leave(self, line: Line) -> None:
        """Say the last words: jobs that a `generate` has not followed to their end are cancelled."""
        for job in tuple(self._generating):
            self._abandon(job)
        if self._ended is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(line.flushed(), FLUSH_SECONDS)
        self._end(describe("disconnected"))

    async def _first_agreement(self, line: Line, keeping: asyncio.Task[None]) -> None:
        """Wait for the first session. Raises `Refused` if there is none."""
        agreed = asyncio.create_task(line.agreed.wait())
        await asyncio.wait((agreed, keeping), return_when=asyncio.FIRST_COMPLETED)
        agreed.cancel()
        self._insist()
        for job in self._session.open:
            self._mailboxes.setdefault(job, Mailbox())


@contextlib.asynccontextmanager
async def connect(
    url: str = LOCAL,
    token: str | None = None,
    *,
    client: str = "underpaint",
    session: str | None = None,
    reconnect: bool = True,
    patience: float = 60.0,
    ssl: tls.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """Connect to the daemon at `url` (`ws://` or `wss://`), and again whenever the connection is lost.

    Without a `token`, that of this machine's own daemon is read from its file. `client` names the program in the
    daemon's log. With `session`, the jobs of an earlier process are in `Client.open`. Without `reconnect` the first
    loss is the last; with it, one that lasts `patience` seconds. `ssl` says whom to trust instead of those whom this
    machine trusts.

    Raises `Refused` if the daemon cannot be reached at first, or refuses.
    """
    core = ClientSession(client, preferred_encodings(is_local(url)), session)
    address = Address(url, token if token is not None else _own_token(url), ssl)
    connected = Client(core)
    line = Line(address, core, connected._deliver, reconnect=reconnect, patience=patience)
    keeping = asyncio.create_task(connected._keep(line))
    try:
        await connected._first_agreement(line, keeping)
        try:
            yield connected
        finally:
            await connected._leave(line)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def _own_token(url: str) -> str:
    """The token of the daemon on this machine; it goes nowhere else."""
    if not is_local(url):
        raise Refused(describe("unauthorized"))
    try:
        return token_file().read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise Refused(describe("unreachable", detail=url)) from None
