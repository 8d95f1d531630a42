"""What a client does not understand, or not from a server."""

from __future__ import annotations

import pytest
from underpaint_protocol.exceptions import MalformedMessage, ProtocolError
from underpaint_protocol.messages import Status, Submit, Worker

from tests.protocol.client_sessions import REQUEST, greeted, receive


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
