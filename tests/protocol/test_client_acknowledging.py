"""What a client is done with."""

from __future__ import annotations

import pytest
from underpaint_protocol.errors import describe
from underpaint_protocol.exceptions import OutOfOrder
from underpaint_protocol.ledger import REMEMBERED
from underpaint_protocol.messages import Accepted, Acknowledge, Done, Error, Result, Resumed, Submit

from tests.protocol.client_sessions import FIRST, IMAGE, REQUEST, TILE, greeted, receive, reconnected, said, submitted


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
