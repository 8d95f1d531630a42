"""Sessions of a client, brought as far as a test begins, and what they say and hear."""

from __future__ import annotations

from underpaint_protocol.client import ClientSession, Event
from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Accepted, Missing, Preview, Request, Tile, Welcome, Worker, vocabulary

from tests.protocol.reference import LIMITS, MODEL

FIRST, SECOND = "1" * 32, "2" * 32
PIXELS = bytes(range(64))
IMAGE, TILES = image_of(4, 4, 4, PIXELS)
(NAME,) = TILES
TILE = Tile(NAME, 64, PIXELS)
OTHER, OTHER_TILES = image_of(4, 4, 4, bytes(64))
REQUEST = Request(model="m", task="text_to_image", width=4, height=4)
INTO = Request(model="m", task="inpaint", width=4, height=4, image=IMAGE)
PREVIEW = Preview("a", 0, 1, 1, 1, b"jpeg", 0.0)
FORGOTTEN = describe("unknown_job")


def welcome(session: str = FIRST) -> Welcome:
    """What a server answers to `hello`."""
    return Welcome("server", session, Worker("ready"), (MODEL,), LIMITS)


def receive(session: ClientSession, *messages: Record) -> list[Event]:
    """What a client tells its program of messages of the server."""
    return [event for message in messages for event in session.receive(vocabulary.encode(message))]


def said(session: ClientSession) -> list[Record]:
    """All that the client has to say at present."""
    frames = []
    while (frame := session.next_frame()) is not None:
        frames.append(vocabulary.decode(frame))
    return frames


def greeted(*encodings: str) -> ClientSession:
    """A session that was welcomed and has nothing more to say."""
    session = ClientSession("test", encodings or ("raw",))
    session.connected()
    receive(session, welcome())
    said(session)
    return session


def submitted(request: Request = REQUEST) -> ClientSession:
    """A session whose job "a" the server accepted with number 1."""
    session = greeted()
    session.submit("a", request, TILES)
    if request.image:
        receive(session, Missing((), query=1))
    receive(session, Accepted("a", 0, seq=1))
    said(session)
    return session


def reconnected(session: ClientSession, *answers: Record) -> list[Event]:
    """Lose the connection, open another, and hear `answers` to `resume`."""
    session.disconnected()
    session.connected()
    events = receive(session, welcome(SECOND), *answers)
    return [event for event in events if not isinstance(event, Welcome)]
