"""Models on their way to the daemon: who may ask, who is told, and what is left when somebody goes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from underpaint_backend.client import Refused, connect
from underpaint_backend.server import pulls
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.handshake import Gate
from underpaint_backend.server.access.tokens import Tokens, digest_of, guests_beside, make_token
from underpaint_backend.server.daemon import Daemon, Options
from underpaint_backend.server.pulls import FetchFailed, Progress
from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    SUBPROTOCOL,
    Error,
    Hello,
    Model,
    Models,
    Pull,
    Pulling,
    Status,
    Welcome,
    vocabulary,
)
from underpaint_protocol.pulls import is_over
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.backend.server.scripted_host import ScriptedHost

PATIENCE = 20.0
TOTAL = 1000
HERE = Model("here", "Here", "family", ("inpaint",), ("ddim",), 16384, 8, 12, 3.0, "ddim")
AWAY = replace(HERE, id="away", name="Away", state="absent", download=TOTAL, licence="MIT")
OTHER = replace(AWAY, id="other", name="Other")
HUGE = replace(HERE, id="huge", name="Huge", state="unfit", detail="it needs 40 GB, and there are 8 GB")


@dataclass(frozen=True)
class Done:
    """How far a download is."""

    done: int
    total: int
    seconds_left: float | None


class SlowHost(ScriptedHost):
    """A host whose downloads go on as the test says."""

    def __init__(self) -> None:
        super().__init__(1)
        self.known = {model.id: model for model in (HERE, AWAY, OTHER, HUGE)}
        self.fetched: list[str] = []
        self.at_work = 0
        self.most_at_work = 0
        self.done = 0
        self.finish = threading.Event()
        self.problem: Exception | None = None
        self.obedient = True
        """Whether a download leaves off when it is told to."""

    def models(self) -> tuple[Model, ...]:
        return tuple(self.known.values())

    async def refresh(self) -> None:
        for name in self.fetched:
            self.known[name] = replace(self.known[name], state="ready")

    def fetch(self, model: str, on_progress: Callable[[Progress], None], left_off: threading.Event) -> bool:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            while not self.finish.wait(0.005):
                on_progress(Done(self.done, TOTAL, 3.5))
                if left_off.is_set() and self.obedient:
                    return False
            if self.problem is not None:
                raise self.problem
            on_progress(Done(TOTAL, TOTAL, 0.0))
            self.fetched.append(model)
            return True
        finally:
            self.at_work -= 1


@dataclass
class House:
    """A daemon that listens, and its two tokens."""

    url: str
    host: SlowHost
    daemon: Daemon
    token: str
    guest: str

    @asynccontextmanager
    async def greeted(self, token: str | None = None) -> AsyncIterator[Caller]:
        """A client that said hello."""
        async with open_socket(
            self.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {token or self.token}"},
            compression=None,
            proxy=None,
        ) as socket:
            caller = Caller(socket)
            await caller.say(Hello("test"))
            await caller.until(lambda message: isinstance(message, Welcome))
            yield caller


class Caller:
    """A connection, and all that was heard on it, with the time."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[tuple[float, Record]] = []

    async def say(self, message: Record) -> None:
        await self.socket.send(vocabulary.encode(message))

    async def hear(self) -> Record:
        message = vocabulary.decode(await self.socket.recv(decode=False))
        self.heard.append((time.monotonic(), message))
        return message

    async def until(self, wanted: Callable[[Record], bool]) -> Record:
        """The next such message."""
        async with asyncio.timeout(PATIENCE):
            while not wanted(message := await self.hear()):
                pass
        return message

    async def pulling(self, wanted: Callable[[Pulling], bool] = lambda pulling: True) -> Pulling:
        """The next such news of a download."""
        news = await self.until(lambda message: isinstance(message, Pulling) and wanted(message))
        assert isinstance(news, Pulling)
        return news

    async def rest(self) -> list[Record]:
        """All that is said until the connection is closed."""
        said = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                said.append(await self.hear())
        return said

    async def refusal(self) -> str:
        """The code of the next error."""
        error = await self.until(lambda message: isinstance(message, Error))
        assert isinstance(error, Error)
        return error.error.code


@asynccontextmanager
async def listening(home: Path) -> AsyncIterator[House]:
    """A daemon over a host that fetches slowly."""
    tokens, host, guest = Tokens(home / "token"), SlowHost(), make_token()
    with changing(guests_beside(home / "token")) as guests:
        guests["guest"] = Guest(digest_of(guest))
    daemon = Daemon(host, Options(Gate(tokens), port=0, home=home, drain_seconds=0.1))
    try:
        async with daemon.listening() as server:
            yield House(daemon.url(server), host, daemon, (home / "token").read_text().strip(), guest)
    finally:
        host.finish.set()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with listening(tmp_path) as house:
        yield house


async def test_a_download_is_told_from_beginning_to_end(house: House) -> None:
    """How many bytes of how many have come, and how long it takes; then the model is ready, and then it is over."""
    async with house.greeted() as caller:
        await caller.say(Pull("away"))
        assert await caller.pulling() == Pulling("away", 0, TOTAL)
        house.host.done = 400
        assert await caller.pulling(lambda news: news.done > 0) == Pulling("away", 400, TOTAL, 3.5)
        house.host.finish.set()
        models = await caller.until(lambda message: isinstance(message, Models))
        assert isinstance(models, Models)
        assert {model.id: model.state for model in models.models}["away"] == "ready"
        assert is_over(end := await caller.pulling())
        assert (end.done, end.error, end.stopped) == (TOTAL, None, False)


async def test_it_is_not_over_before_all_is_checked(house: House) -> None:
    """All bytes may be there, and their sums still have to be taken."""
    async with house.greeted() as caller:
        house.host.done = TOTAL
        await caller.say(Pull("away"))
        news = await caller.pulling(lambda news: news.done > 0)
        assert not is_over(news)


async def test_news_come_four_times_a_second_at_most(house: House) -> None:
    """However often the download itself says how far it is."""
    async with house.greeted() as caller:
        await caller.say(Pull("away"))
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            house.host.done += 1
            try:
                await asyncio.wait_for(caller.hear(), 0.02)
            except TimeoutError:
                continue
        news = [message for _, message in caller.heard if isinstance(message, Pulling)]
        assert 4 <= len(news) <= 7


async def test_only_the_owner_may_fetch(house: House) -> None:
    """A guest hears that it may not, can stop nothing, and is told nothing of downloads; but of what is ready then."""
    async with house.greeted(house.guest) as guest, house.greeted() as owner:
        await guest.say(Pull("away"))
        assert await guest.refusal() == "may_not_fetch"
        await owner.say(Pull("away"))
        await owner.pulling()
        await guest.say(Pull("away", stop=True))
        assert await guest.refusal() == "may_not_fetch"
        house.host.finish.set()
        assert is_over(await owner.pulling(is_over))
        await guest.until(lambda message: isinstance(message, Models))
        assert not [message for _, message in guest.heard if isinstance(message, Pulling)]


@pytest.mark.parametrize(("model", "code"), [("nothing", "unknown_model"), ("huge", "model_unfit")])
async def test_what_cannot_be_fetched_is_refused(house: House, model: str, code: str) -> None:
    """A model that nobody knows, and one that would not run here."""
    async with house.greeted() as caller:
        await caller.say(Pull(model))
        assert await caller.refusal() == code


async def test_what_is_there_is_not_fetched(house: House) -> None:
    """The answer is that it is over."""
    async with house.greeted() as caller:
        await caller.say(Pull("here"))
        assert is_over(await caller.pulling())
        assert house.host.most_at_work == 0


async def test_a_stop_is_told_at_once(house: House) -> None:
    """Also where the download takes its time to leave off; the next one waits until it has."""
    house.host.obedient = False
    async with house.greeted() as caller:
        await caller.say(Pull("away"))
        await caller.pulling()
        await caller.say(Pull("away", stop=True))
        assert (await caller.pulling(is_over)).stopped
        await caller.say(Pull("other"))
        await caller.pulling(lambda news: news.model == "other")
        house.host.obedient = True
        house.host.finish.set()
        assert (await caller.pulling(lambda news: news.model == "other" and is_over(news))).done == TOTAL
    assert house.host.most_at_work == 1


async def test_a_stop_of_nothing_is_answered(house: House) -> None:
    """Nobody waits for ever for the end of what does not run."""
    async with house.greeted() as caller:
        await caller.say(Pull("away", stop=True))
        assert (await caller.pulling()).stopped


async def test_a_stopped_model_can_be_asked_for_again(house: House) -> None:
    """It begins where it left off."""
    async with house.greeted() as caller:
        await caller.say(Pull("away"))
        await caller.say(Pull("away", stop=True))
        await caller.pulling(is_over)
        await caller.say(Pull("away"))
        house.host.finish.set()
        assert (await caller.pulling(lambda news: is_over(news) and not news.stopped)).done == TOTAL


async def test_one_is_fetched_after_the_other(house: House) -> None:
    """Two that were asked for come in order, never both at once; asking twice is asking once."""
    async with house.greeted() as caller:
        for model in ("away", "other", "away"):
            await caller.say(Pull(model))
        await caller.pulling(lambda news: news.model == "other")
        house.host.finish.set()
        ends = [(await caller.pulling(is_over)).model for _ in range(2)]
    assert ends == house.host.fetched == ["away", "other"]
    assert house.host.most_at_work == 1


async def test_a_waiting_download_can_be_stopped(house: House) -> None:
    """It never begins, and the one that runs goes on."""
    async with house.greeted() as caller:
        await caller.say(Pull("away"))
        await caller.say(Pull("other"))
        await caller.say(Pull("other", stop=True))
        assert (await caller.pulling(is_over)).model == "other"
        house.host.finish.set()
        assert (await caller.pulling(is_over)).done == TOTAL
    assert house.host.fetched == ["away"]


async def test_who_comes_in_the_middle_is_told(house: House) -> None:
    """A download goes on when its client leaves, and the next one hears of it right after the welcome."""
    async with house.greeted() as caller:
        await caller.say(Pull("away"))
        house.host.done = 300
        await caller.pulling(lambda news: news.done == 300)
    async with house.greeted(house.guest) as guest, house.greeted() as later:
        assert (await later.pulling()).done == 300
        house.host.finish.set()
        assert (await later.pulling(is_over)).done == TOTAL
        assert not [message for _, message in guest.heard if isinstance(message, Pulling)]


@pytest.mark.parametrize(
    ("problem", "code"),
    [(FetchFailed(describe("disk_full", model="away", detail="1 GB")), "disk_full"), (KeyError("x"), "internal")],
)
async def test_a_download_that_fails_says_why(house: House, problem: Exception, code: str) -> None:
    """In the words of the table, also where the fault is ours; the model can be asked for again."""
    house.host.problem = problem
    house.host.finish.set()
    async with house.greeted() as caller:
        await caller.say(Pull("away"))
        end = await caller.pulling(is_over)
        assert end.error is not None
        assert (end.error.code, end.done) == (code, 0)
        house.host.problem = None
        await caller.say(Pull("away"))
        assert (await caller.pulling(lambda news: is_over(news) and news.error is None)).done == TOTAL


async def test_a_change_of_the_folders_is_told(house: House) -> None:
    """Without anybody asking."""
    async with house.greeted() as caller:
        house.host.known["new"] = replace(HERE, id="new")
        await house.daemon._look_at_models()
        models = await caller.until(lambda message: isinstance(message, Models))
        assert isinstance(models, Models)
        assert "new" in [model.id for model in models.models]


@pytest.mark.parametrize("obedient", [True, False])
async def test_a_daemon_that_is_stopped_leaves_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obedient: bool
) -> None:
    """Clients hear that it stopped; a download that hangs does not keep the daemon."""
    monkeypatch.setattr(pulls, "GRACE", 0.3)
    begun = time.monotonic()
    async with listening(tmp_path) as house:
        house.host.obedient = obedient
        caller = await _with_a_download(house)
        begun = time.monotonic()
    took = time.monotonic() - begun
    heard = await caller.rest()
    assert [message.stopped for message in heard if isinstance(message, Pulling)][-1:] == [True]
    assert [message.draining for message in heard if isinstance(message, Status)] == [True]
    assert took < 5
    house.host.obedient = True


async def test_a_client_that_may_not_fetch_hears_it(house: House) -> None:
    """As an exception where it waits for the model."""
    async with asyncio.timeout(PATIENCE), connect(house.url, house.guest) as client:
        with pytest.raises(Refused) as refusal:
            await anext(client.pull("away"))
        assert refusal.value.error.code == "may_not_fetch"


async def _with_a_download(house: House) -> Caller:
    """A client that has the model fetched, and stays connected."""
    socket = await open_socket(
        house.url,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        additional_headers={"Authorization": f"Bearer {house.token}"},
        proxy=None,
    )
    caller = Caller(socket)
    await caller.say(Hello("test"))
    await caller.say(Pull("away"))
    await caller.pulling()
    return caller
