"""Models that a client has fetched, frame by frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
from underpaint_protocol.client import ClientSession
from underpaint_protocol.errors import describe
from underpaint_protocol.messages import Error, Models, Pull, Pulling, Resume, Resumed
from underpaint_protocol.pulls import is_over

from tests.protocol.client_sessions import FIRST, SECOND, greeted, receive, reconnected, said, welcome
from tests.protocol.reference import MODEL

HALF = Pulling("m", 5, 10)
REFUSED = Error(describe("may_not_fetch", model="m"))


def test_a_wish_is_said_and_its_news_are_told() -> None:
    """A pull goes out at once; what comes of it is for the program."""
    session = greeted()
    session.pull("m")
    assert said(session) == [Pull("m")]
    assert receive(session, HALF) == [HALF]
    session.pull("m", stop=True)
    assert said(session) == [Pull("m", stop=True)]


def test_a_wish_waits_for_a_connection() -> None:
    """Asked for without one, it is said as soon as there is a session."""
    session = ClientSession("test")
    session.pull("m")
    session.connected()
    receive(session, welcome())
    assert Pull("m") in said(session)


@pytest.mark.parametrize("answer", [HALF, REFUSED], ids=["begun", "refused"])
def test_a_wish_that_was_answered_is_not_repeated(answer: Pulling | Error) -> None:
    """One that was said on a connection that broke is said again; an answer ends it."""
    session = greeted()
    session.pull("m")
    said(session)
    assert Pull("m") in reconnected_with(session)
    receive(session, answer)
    assert Pull("m") not in reconnected_with(session)


def test_old_news_do_not_answer_a_stop() -> None:
    """What was on its way before the stop was heard is no answer to it; the end is."""
    session = greeted()
    session.pull("m", stop=True)
    receive(session, HALF)
    assert Pull("m", stop=True) in reconnected_with(session)
    receive(session, replace(HALF, stopped=True))
    assert Pull("m", stop=True) not in reconnected_with(session)


def test_a_change_of_the_models_changes_the_welcome() -> None:
    """What is known of the server stays up to date, and the program is told."""
    session = greeted()
    changed = Models((replace(MODEL, state="absent", download=7),))
    assert receive(session, changed) == [changed]
    assert session.welcome is not None
    assert session.welcome.models == changed.models


def test_news_of_models_may_come_while_a_session_is_resumed() -> None:
    """A download that goes on is told right after the welcome, before the session is agreed on."""
    session = greeted()
    session.disconnected()
    session.connected()
    assert receive(session, welcome(SECOND), HALF, Models((MODEL,)))[1:] == [HALF, Models((MODEL,))]
    assert said(session)[-1] == Resume(FIRST, 0)
    receive(session, Resumed(FIRST, ()))
    assert session.ready


def test_how_a_download_ends() -> None:
    """With all bytes, with an error, or stopped."""
    assert not is_over(HALF)
    assert is_over(replace(HALF, done=10))
    assert is_over(replace(HALF, stopped=True))
    assert is_over(replace(HALF, error=describe("internal")))


def reconnected_with(session: ClientSession) -> list[object]:
    """What a client says on a new connection."""
    reconnected(session, Resumed(FIRST, ()))
    return list(said(session))
