"""The client's core, frame by frame and without a socket."""

from __future__ import annotations

import pytest
from underpaint_protocol.client import ClientSession, Event, Picture, preferred_encodings
from underpaint_protocol.encodings import ENCODINGS, encode
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import MalformedMessage, OutOfOrder, ProtocolError, TileError
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.ledger import REMEMBERED
from underpaint_protocol.messages import (
    MAX_TILES,
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
    Missing,
    Position,
    Preview,
    Progress,
    Request,
    Result,
    Resume,
    Resumed,
    Started,
    Status,
    Submit,
    Tile,
    Welcome,
    Worker,
    vocabulary,
)

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
    return Welcome("server", session, Worker("ready"), (MODEL,), LIMITS)


def receive(session: ClientSession, *messages: Record) -> list[Event]:
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


# Opening


def test_a_client_greets_first() -> None:
    """Nothing goes before `hello`, and what was asked for before `welcome` came goes after."""
    session = ClientSession("test", ("zlib",))
    session.connected()
    session.submit("a", REQUEST)
    session.cancel("a")
    assert said(session) == [Hello("test", ("zlib",))]
    assert receive(session, welcome()) == [welcome()]
    assert session.welcome == welcome()
    assert session.ready
    assert said(session) == [Cancel("a")]


def test_a_lost_connection_is_continued() -> None:
    """The earlier session is asked for with the last number that came."""
    session = submitted()
    reconnected(session)
    assert not session.ready
    assert said(session) == [Hello("test"), Resume(FIRST, 1)]
    receive(session, Resumed(FIRST, ("a",)))
    assert session.ready
    assert session.session == FIRST


def test_an_unknown_session_begins_anew() -> None:
    """A daemon that forgot everything gets the job again, in the session of its `welcome`."""
    session = submitted()
    reconnected(session)
    said(session)
    assert receive(session, Error(describe("unknown_session"))) == []
    assert (session.session, session.last_seq) == (SECOND, 0)
    assert said(session) == [Submit("a", REQUEST)]
    receive(session, Accepted("a", 0, seq=1), Done("a", 1.0, seq=2))
    assert session.running == ()


def test_a_job_that_the_server_forgot_begins_anew() -> None:
    """A session that goes on may have lost a job; it is submitted again."""
    session = submitted()
    reconnected(session, Resumed(FIRST, ()))
    assert said(session)[-1] == Submit("a", REQUEST)


@pytest.mark.parametrize(
    "message",
    [Accepted("a", 0, seq=1), TILE, Resumed(FIRST, ()), Missing((), query=1), PREVIEW],
    ids=lambda message: type(message).__name__,
)
def test_nothing_comes_before_the_session_is_agreed_on(message: Record) -> None:
    """What belongs to a session breaks the language before there is one."""
    session = ClientSession("test")
    session.connected()
    with pytest.raises(OutOfOrder):
        receive(session, message)


def test_another_session_than_the_one_asked_for_is_refused() -> None:
    """A server that resumes somebody else's session breaks the language."""
    session = submitted()
    with pytest.raises(OutOfOrder):
        reconnected(session, Resumed(SECOND, ()))


def test_a_second_welcome_breaks_the_language() -> None:
    """A connection is welcomed once."""
    with pytest.raises(OutOfOrder):
        receive(greeted(), welcome())


def test_a_refusal_before_the_welcome_is_told() -> None:
    """Whatever the server objects to in `hello` reaches the program, and so does its worker's state."""
    session = ClientSession("test")
    session.connected()
    error, status = Error(describe("internal")), Status(Worker("starting"))
    assert receive(session, error, status) == [error, status]


def test_an_earlier_life_is_continued() -> None:
    """With the id of its session, a new program hears of all jobs that the old one did not acknowledge."""
    session = ClientSession("test", session=FIRST)
    session.connected()
    receive(session, welcome(SECOND))
    assert said(session)[-1] == Resume(FIRST, 0)
    receive(session, Resumed(FIRST, ("a",)))
    assert session.open == session.running == ("a",)
    events = receive(session, Accepted("a", 0, seq=1), Done("a", 1.0, seq=2))
    assert events[-1] == Done("a", 1.0, seq=2)


def test_a_job_of_an_earlier_life_that_is_lost_ends() -> None:
    """Nobody has its request any more, so that its program is told that there is no such job."""
    session = ClientSession("test", session=FIRST)
    session.connected()
    receive(session, welcome(SECOND), Resumed(FIRST, ("a",)))
    assert reconnected(session, Error(describe("unknown_session"))) == [Failed("a", FORGOTTEN)]
    assert session.open == ()


# Submitting


def test_a_job_that_is_done_once_more_is_told_once() -> None:
    """A daemon that was killed before it wrote an end down does the job again: no news to who heard the end."""
    session = submitted()
    assert receive(session, Done("a", 1.0, seq=2)) == [Done("a", 1.0, seq=2)]
    again = [Started("a", 1, seq=10), Progress("a", "loading", 0.0, seq=11), Done("a", 2.0, seq=12)]
    assert reconnected(session, Resumed(FIRST, ("a",)), *again) == []
    session.acknowledge("a")
    assert said(session)[-1] == Acknowledge("a")


def test_a_job_whose_pixels_had_not_come_begins_anew_with_its_daemon() -> None:
    """The end that was heard but not told gives way to that of the second time, and is told once."""
    session = submitted()
    assert receive(session, Result("a", 0, 5, IMAGE, seq=2), Done("a", 1.0, seq=3)) == []
    events = reconnected(session, Resumed(FIRST, ("a",)), Started("a", 1, seq=10))
    events += receive(session, Result("a", 0, 5, IMAGE, seq=11), Done("a", 2.0, seq=12), TILE)
    assert [type(event) for event in events] == [Started, Picture, Done]


def test_a_request_without_pixels_goes_at_once() -> None:
    """There is nothing to ask for first."""
    session = greeted()
    session.submit("a", REQUEST, previews=False, supersedes="b")
    assert said(session) == [Submit("a", REQUEST, False, "b")]


def test_only_missing_tiles_travel() -> None:
    """The server is asked which tiles it lacks; those go before the request that names them."""
    session = greeted()
    request = Request(model="m", task="inpaint", width=4, height=4, image=IMAGE, mask=OTHER)
    session.submit("a", request, {**TILES, **OTHER_TILES, b"x" * 16: b"of the rest of the canvas"})
    assert said(session) == [Have(1, (NAME, *OTHER_TILES))]
    receive(session, Missing((NAME,), query=1))
    assert said(session) == [TILE, Submit("a", request)]


def test_tiles_that_were_evicted_are_sent_again() -> None:
    """A server that lost a tile meanwhile asks for it, and gets the request again after it."""
    session = greeted()
    session.submit("a", INTO, TILES)
    receive(session, Missing((), query=1))
    said(session)
    receive(session, Missing((NAME,), job="a"))
    assert said(session) == [TILE, Submit("a", INTO)]


def test_an_answer_to_an_old_question_is_passed_over() -> None:
    """Each `have` is answered once; a number that nobody waits for means nothing."""
    session = greeted()
    session.submit("a", INTO, TILES)
    said(session)
    receive(session, Missing((), query=1), Missing((NAME,), query=1), Missing((NAME,), query=7))
    assert said(session) == [Submit("a", INTO)]


def test_a_server_cannot_ask_for_what_it_was_not_offered() -> None:
    """A tile of another picture stays here."""
    session = greeted()
    session.submit("a", INTO, TILES)
    with pytest.raises(TileError):
        receive(session, Missing(tuple(OTHER_TILES), query=1))


def test_more_tiles_than_a_message_holds() -> None:
    """The server is asked about the first ones; the rest it asks for by itself."""
    wide, tiles = image_of(MAX_TILES * 4, 256, 1, b"".join(bytes([i]) * 1024 * 1024 for i in range(4)))
    mask, more = image_of(MAX_TILES * 4, 256, 1, bytes(1 << 22))
    request = Request(model="m", task="inpaint", width=MAX_TILES * 4, height=256, image=wide, mask=mask)
    session = greeted()
    session.submit("a", request, {**tiles, **more})
    (have,) = said(session)
    assert isinstance(have, Have)
    assert set(have.tiles) == set(tiles) | set(more)


def test_a_request_without_its_pixels_is_refused_here() -> None:
    """A tile that the request names must be given."""
    with pytest.raises(TileError):
        greeted().submit("a", INTO)


def test_an_id_is_used_once() -> None:
    """An id that is open or over is refused before anything is sent."""
    session = submitted()
    with pytest.raises(OutOfOrder):
        session.submit("a", REQUEST)
    receive(session, Done("a", 1.0, seq=2))
    session.acknowledge("a")
    with pytest.raises(OutOfOrder):
        session.submit("a", REQUEST)


def test_a_refused_job_is_not_running_and_its_id_is_free() -> None:
    """An error that names a job which was not accepted ends it, and the id may be used again."""
    session = greeted()
    session.submit("a", INTO, TILES)
    said(session)
    receive(session, Missing((NAME,), query=1))
    refusal = Error(describe("unknown_model", detail="m"), "a")
    assert receive(session, refusal) == [refusal]
    assert session.running == ()
    assert said(session) == []
    session.submit("a", REQUEST)


def test_a_daemon_that_stops_is_asked_again() -> None:
    """A job that a daemon refused because it stops is offered to the next one, and its program hears nothing of it."""
    session = greeted()
    session.submit("a", REQUEST)
    assert receive(session, Error(describe("shutting_down"), "a")) == []
    reconnected(session, Resumed(FIRST, ()))
    assert said(session)[-1] == Submit("a", REQUEST)


def test_what_was_not_accepted_is_offered_again() -> None:
    """A request that was lost on its way goes once more."""
    session = greeted()
    session.submit("a", INTO, TILES)
    reconnected(session, Resumed(FIRST, ()))
    assert said(session)[-1] == Have(2, (NAME,))


def test_other_errors_are_told() -> None:
    """An error of no job, of a running job or of one that nobody knows reaches the program, except `unknown_job`."""
    session = submitted()
    errors = [Error(describe("internal"), job) for job in (None, "a", "b")]
    assert receive(session, *errors) == errors
    assert receive(session, Error(FORGOTTEN, "b"), Error(FORGOTTEN, "a")) == []
    assert session.running == ("a",)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tiles_go_in_the_first_encoding_that_both_know(encoding: str) -> None:
    """Pixels that do not get smaller by it travel raw."""
    session = greeted("later", encoding)
    noise = b"".join(value.to_bytes(1, "little") for value in range(64))
    for job, pixels in (("flat", bytes(64)), ("noise", noise)):
        image, tiles = image_of(4, 4, 4, pixels)
        session.submit(job, Request(model="m", task="inpaint", width=4, height=4, image=image), tiles)
        receive(session, Missing(image.tiles, job=job))
    flat, noisy = (message for message in said(session) if isinstance(message, Tile))
    assert (flat.encoding, flat.size, flat.data) == (encoding, 64, encode(encoding, bytes(64)))
    assert noisy.data == noise or noisy.encoding == encoding


def test_encodings_are_preferred_by_distance() -> None:
    """On one machine raw pixels are best, over a network small ones."""
    assert preferred_encodings(local=True)[0] == "raw"
    assert preferred_encodings(local=False)[-1] == "raw"


@pytest.mark.parametrize("code", ["storage_full", "bad_tile"])
def test_a_tile_that_the_server_does_not_take_is_not_sent_for_ever(code: str) -> None:
    """When the server asks again for what it objected to, the job that needs it is refused with that objection."""
    session = greeted()
    session.submit("a", INTO, TILES)
    receive(session, Missing((NAME,), query=1))
    said(session)
    objection = describe(code, detail="broken")
    assert receive(session, Error(objection)) == [Error(objection)]
    assert receive(session, Missing((NAME,), job="a")) == [Error(objection, "a")]
    assert said(session) == []
    assert session.open == ()


# Cancelling


def test_a_cancel_goes_before_pixels() -> None:
    """Tiles that wait are not sent for a job that is cancelled, nor is its request."""
    session = greeted()
    session.submit("a", INTO, TILES)
    receive(session, Missing((NAME,), query=1))
    session.cancel("a")
    session.cancel("a")
    assert said(session) == [Have(1, (NAME,)), Cancel("a")]
    assert receive(session, Missing((NAME,), job="a")) == []
    assert said(session) == []
    assert receive(session, Error(FORGOTTEN, "a")) == [Cancelled("a")]
    assert session.open == ()


def test_a_cancel_survives_the_connection() -> None:
    """A server that did not hear of a cancel hears of it on the next connection."""
    session = submitted()
    session.disconnected()
    session.cancel("a")
    reconnected(session, Resumed(FIRST, ("a",)))
    assert said(session)[-1] == Cancel("a")
    assert receive(session, Cancelled("a", seq=2)) == [Cancelled("a", seq=2)]


def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    """Neither a job that has ended nor one that never was is cancelled."""
    session = submitted()
    receive(session, Done("a", 1.0, seq=2))
    session.cancel("a")
    session.cancel("b")
    assert said(session) == []


def test_news_of_a_job_that_is_over_are_passed_over() -> None:
    """A job whose cancel came back before the news that it was accepted ends once, and is cancelled again."""
    session = greeted()
    session.submit("a", REQUEST)
    session.cancel("a")
    assert receive(session, Error(FORGOTTEN, "a")) == [Cancelled("a")]
    said(session)
    assert receive(session, Accepted("a", 0, seq=1), Started("a", 1, seq=2), Cancelled("a", seq=3)) == []
    assert said(session) == [Cancel("a"), Acknowledge("a")]


def test_what_is_superseded_is_not_accepted_after() -> None:
    """A job whose pixels are slower than those of its successor is cancelled by the client."""
    session = greeted()
    session.submit("old", INTO, TILES)
    session.submit("new", REQUEST, supersedes="old")
    session.submit("newest", REQUEST, supersedes="never")
    receive(session, Accepted("new", 0, seq=1), Accepted("newest", 0, seq=2))
    assert said(session)[-1] == Cancel("old")


# Following


def test_a_result_comes_with_its_pixels() -> None:
    """Its tiles are fetched, and what follows it waits until they are there."""
    session = submitted()
    events = receive(session, Started("a", 1, seq=2), Result("a", 0, 7, IMAGE, seq=3), Done("a", 1.0, seq=4))
    assert events == [Started("a", 1, seq=2)]
    assert session.running == ("a",)
    assert said(session) == [Fetch("a", (NAME,))]
    assert receive(session, TILE) == [Picture("a", 0, 7, 4, 4, bytearray(PIXELS)), Done("a", 1.0, seq=4)]
    assert session.running == ()
    assert session.open == ("a",)


def test_another_attempt_does_not_bring_the_same_picture_again() -> None:
    """Pictures that came before a worker died are not told twice."""
    session = submitted()
    receive(session, Started("a", 1, seq=2), Result("a", 0, 7, IMAGE, seq=3), TILE)
    said(session)
    again = receive(session, Started("a", 2, seq=4), Result("a", 0, 7, IMAGE, seq=5), Done("a", 1.0, seq=6))
    assert again == [Started("a", 2, seq=4), Done("a", 1.0, seq=6)]
    assert said(session) == []


def test_a_tile_serves_all_who_wait_for_it() -> None:
    """Two jobs with the same picture are both complete."""
    session = submitted()
    session.submit("b", REQUEST)
    receive(session, Accepted("b", 0, seq=2), Result("a", 0, 7, IMAGE, seq=3), Result("b", 0, 7, IMAGE, seq=4))
    assert [event.job for event in receive(session, TILE) if isinstance(event, Picture)] == ["a", "b"]
    assert receive(session, TILE) == []


def test_a_damaged_tile_is_noticed() -> None:
    """Content that does not match its name breaks the language."""
    session = submitted()
    receive(session, Result("a", 0, 7, IMAGE, seq=2))
    with pytest.raises(TileError):
        receive(session, Tile(NAME, 64, bytes(64)))


def test_after_a_lost_connection_only_missing_tiles_are_fetched() -> None:
    """What came is kept, and the rest is asked for again."""
    session = submitted()
    image, tiles = image_of(2, 1, 4, bytes(range(8)), x=255)
    receive(session, Result("a", 0, 7, image, seq=2))
    first, second = tiles
    receive(session, Tile(first, 4, tiles[first]))
    reconnected(session, Resumed(FIRST, ("a",)))
    assert said(session)[-1] == Fetch("a", (second,))


def test_results_that_the_server_forgot_are_painted_again() -> None:
    """A fetch that fails means that the job is unknown: it is submitted again, and its picture still comes."""
    session = submitted()
    receive(session, Result("a", 0, 7, IMAGE, seq=2), Result("a", 1, 8, OTHER, seq=3), Done("a", 1.0, seq=4))
    said(session)
    assert receive(session, Error(FORGOTTEN, "a"), Error(FORGOTTEN, "a")) == []
    assert said(session) == [Submit("a", REQUEST)]
    again = [Accepted("a", 0, seq=5), Result("a", 0, 7, IMAGE, seq=6), TILE, Done("a", 1.0, seq=7)]
    assert [type(event) for event in receive(session, *again)] == [Accepted, Picture, Done]


@pytest.mark.parametrize("job", ["a", None])
def test_a_picture_that_the_server_lost_fails_its_job(job: str | None) -> None:
    """A tile that is gone from the server's disk never comes; its job fails, and keeps nobody waiting."""
    session = submitted()
    receive(session, Result("a", 0, 7, IMAGE, seq=2), Progress("a", "decoding", 0.5, seq=3))
    lost = describe("missing_pixels", detail="it was lost")
    assert receive(session, Error(lost, job)) == [Progress("a", "decoding", 0.5, seq=3)]
    assert receive(session, Result("a", 1, 8, OTHER, seq=4), Done("a", 1.0, seq=5)) == [Failed("a", lost, seq=5)]
    assert receive(session, Error(lost, job)) == []


def test_a_lost_picture_is_painted_again_by_a_daemon_that_knows_nothing() -> None:
    """If the job begins anew before its failure was told, its pictures come like any others."""
    session = submitted()
    receive(session, Result("a", 0, 7, IMAGE, seq=2), Error(describe("missing_pixels", detail="it was lost"), "a"))
    reconnected(session, Error(describe("unknown_session")))
    again = [Accepted("a", 0, seq=1), Result("a", 0, 7, IMAGE, seq=2), TILE, Done("a", 1.0, seq=3)]
    assert [type(event) for event in receive(session, *again)] == [Accepted, Picture, Done]


def test_a_picture_that_is_lost_after_the_end_fails_its_job_too() -> None:
    """The end that was held back becomes a failure."""
    session = submitted()
    receive(session, Result("a", 0, 7, IMAGE, seq=2), Done("a", 1.0, seq=3))
    lost = describe("missing_pixels", detail="it was lost")
    assert receive(session, Error(lost, "a")) == [Failed("a", lost, seq=3)]


def test_a_late_cancel_is_told_from_a_failed_fetch() -> None:
    """With both on their way, the first `unknown_job` only makes the client ask again."""
    session = submitted()
    receive(session, Result("a", 0, 7, IMAGE, seq=2))
    session.cancel("a")
    receive(session, Done("a", 1.0, seq=3))
    said(session)
    receive(session, Error(FORGOTTEN, "a"))
    assert said(session) == [Fetch("a", (NAME,))]
    assert [type(event) for event in receive(session, TILE)] == [Picture, Done]


def test_what_was_heard_is_not_told_again() -> None:
    """Numbers that came before are passed over."""
    session = submitted()
    assert receive(session, Accepted("a", 0, seq=1)) == []


def test_previews_and_places_are_those_of_running_jobs() -> None:
    """What comes too late or for a job that nobody knows is passed over."""
    session = submitted()
    assert receive(session, PREVIEW, Position("a", 1)) == [PREVIEW, Position("a", 1)]
    receive(session, Done("a", 1.0, seq=2))
    assert receive(session, PREVIEW, Position("b", 1)) == []


@pytest.mark.parametrize("end", [Done("a", 1.0, seq=2), Failed("a", FORGOTTEN, seq=2), Cancelled("a", seq=2)])
def test_nothing_comes_after_the_end(end: Record) -> None:
    """Each job ends once; whatever follows breaks the language."""
    session = submitted()
    assert receive(session, end) == [end]
    with pytest.raises(OutOfOrder):
        receive(session, Progress("a", "denoising", 1.0, seq=3))


def test_a_job_that_nobody_submitted_breaks_the_language() -> None:
    """State of a foreign job is not passed over in silence."""
    with pytest.raises(OutOfOrder):
        receive(greeted(), Accepted("b", 0, seq=1))


# Acknowledging


def test_an_end_is_acknowledged_by_the_program() -> None:
    """Both sides forget a job once its program says so, and not before; a second time does no harm."""
    session = submitted()
    with pytest.raises(OutOfOrder):
        session.acknowledge("a")
    receive(session, Result("a", 0, 7, IMAGE, seq=2), Done("a", 1.0, seq=3))
    with pytest.raises(OutOfOrder):
        session.acknowledge("a")
    receive(session, TILE)
    said(session)
    session.acknowledge("a")
    session.acknowledge("a")
    assert said(session) == [Acknowledge("a")]
    assert session.open == ()


def test_an_acknowledgement_survives_the_connection() -> None:
    """A server that still has a job that is over hears so again."""
    session = submitted()
    receive(session, Done("a", 1.0, seq=2))
    session.disconnected()
    session.acknowledge("a")
    reconnected(session, Resumed(FIRST, ("a",)))
    assert said(session)[-1] == Acknowledge("a")
    assert session.open == ()


def test_a_job_that_ended_waits_for_its_program_on_every_connection() -> None:
    """An end that was told and not acknowledged is neither told nor asked for again, whatever the server remembers."""
    session = submitted()
    receive(session, Done("a", 1.0, seq=2))
    assert reconnected(session, Resumed(FIRST, ("a",))) == []
    assert reconnected(session, Error(describe("unknown_session"))) == []
    assert not [message for message in said(session) if isinstance(message, Submit)]
    assert session.open == ("a",)


def test_not_all_jobs_are_remembered_for_ever() -> None:
    """What is over is bounded."""
    session = greeted()
    for number in range(REMEMBERED + 1):
        job = f"{number}"
        session.submit(job, REQUEST)
        receive(session, Accepted(job, 0, seq=2 * number + 1), Done(job, 1.0, seq=2 * number + 2))
        session.acknowledge(job)
    session.submit("0", REQUEST)
    assert session.open == ("0",)


# What is no message of the server


def test_a_message_of_a_later_version_is_passed_over() -> None:
    """A client survives a server that can say more."""
    assert greeted().receive(b"\x81\xa4type\xa5later") == []


def test_broken_bytes_are_an_error() -> None:
    """A frame that is no message at all is not passed over."""
    with pytest.raises(MalformedMessage):
        greeted().receive(b"\xc1")


def test_the_words_of_a_client_are_not_the_servers() -> None:
    """A server may tell its worker's state, but not submit jobs."""
    session = greeted()
    status = Status(Worker("restarting"))
    assert receive(session, status) == [status]
    with pytest.raises(ProtocolError):
        receive(session, Submit("a", REQUEST))
