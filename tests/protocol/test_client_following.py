"""A client's jobs on the server: progress, previews, pictures and one end."""

from __future__ import annotations

import pytest
from underpaint_protocol.client import Picture
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import OutOfOrder, TileError
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Accepted,
    Acknowledge,
    Cancelled,
    Done,
    Error,
    Failed,
    Fetch,
    Position,
    Progress,
    Result,
    Resumed,
    Started,
    Submit,
    Tile,
)

from tests.protocol.client_sessions import (
    FIRST,
    FORGOTTEN,
    IMAGE,
    NAME,
    OTHER,
    PIXELS,
    PREVIEW,
    REQUEST,
    TILE,
    greeted,
    receive,
    reconnected,
    said,
    submitted,
)


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
