"""A client's jobs on their way to the server, with their pixels."""

from __future__ import annotations

import pytest
from underpaint_protocol.client import preferred_encodings
from underpaint_protocol.encodings import ENCODINGS, encode
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import OutOfOrder, TileError
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import MAX_TILES, Done, Error, Have, Missing, Request, Resumed, Submit, Tile

from tests.protocol.client_sessions import (
    FIRST,
    FORGOTTEN,
    IMAGE,
    INTO,
    NAME,
    OTHER,
    OTHER_TILES,
    REQUEST,
    TILE,
    TILES,
    greeted,
    receive,
    reconnected,
    said,
    submitted,
)


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


@pytest.mark.parametrize("code", ["daemon_disk_full", "bad_tile", "too_many_uploads"])
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
