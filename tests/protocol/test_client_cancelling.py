"""Jobs that a client takes back."""

from __future__ import annotations

from underpaint_protocol.messages import (
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Done,
    Error,
    Have,
    Missing,
    Resumed,
    Started,
)

from tests.protocol.client_sessions import (
    FIRST,
    FORGOTTEN,
    INTO,
    NAME,
    REQUEST,
    TILES,
    greeted,
    receive,
    reconnected,
    said,
    submitted,
)


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
