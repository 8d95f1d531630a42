"""How a client begins a connection, and goes on after one that was lost."""

from __future__ import annotations

import dataclasses

import pytest
from underpaint_protocol.client import ClientSession
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import OutOfOrder
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    Accepted,
    Cancel,
    Done,
    Error,
    Failed,
    Hello,
    Missing,
    Resume,
    Resumed,
    Status,
    Submit,
    Worker,
)

from tests.protocol.client_sessions import (
    FIRST,
    FORGOTTEN,
    PREVIEW,
    REQUEST,
    SECOND,
    TILE,
    greeted,
    receive,
    reconnected,
    said,
    submitted,
    welcome,
)


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


def test_a_server_may_have_a_thousand_models() -> None:
    """A daemon tells of all of them at once, in more values than a client may send."""
    session = ClientSession("test")
    session.connected()
    many = dataclasses.replace(welcome(), models=welcome().models * 1000)
    assert receive(session, many) == [many]


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
