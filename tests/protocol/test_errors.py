"""The table of everything that can go wrong."""

from __future__ import annotations

import json

import pytest
from underpaint_protocol.errors import TABLE, describe, refusal_in


@pytest.mark.parametrize("code", TABLE)
def test_every_error_has_a_sentence_and_a_hint(code: str) -> None:
    """Each line of the table can be told to an artist, with all its places filled."""
    places = {
        "detail": "because",
        "model": "Primer",
        "known": "ddim, euler",
        "scheduler": "ddim:1+foo:2",
        "example": "ddim:30+euler:20",
        "precision": "nf4",
        "when": "06:00",
        "lora": "Ink",
        "url": "https://example.org",
    }
    error = describe(code, **places)
    assert error.message[0].isupper()
    assert error.message.endswith(".")
    assert "{" not in error.message + error.hint
    assert error.hint.endswith(".")


@pytest.mark.parametrize("body", [None, b"", b"<html>", b"[]", b"{}", b'{"code": 7}', b"\xff", bytearray(b"null")])
def test_what_another_server_answers_is_no_error_of_ours(body: bytes | None) -> None:
    """A refusal that is not the daemon's own is told apart, whatever is in it."""
    assert refusal_in(body) is None


def test_the_daemons_own_refusal_is_read() -> None:
    """The error in the body of a refused handshake arrives as it was sent."""
    error = describe("unauthorized")
    assert refusal_in(json.dumps(error.to_wire()).encode()) == error


def test_what_is_refused_from_afar_is_mended_by_whom_can() -> None:
    """A name that the daemon does not know is no matter of another address; work is less with fewer steps, too."""
    assert describe("forbidden_host").hint.startswith(
        "Whoever looks after the daemon has to start it with --allow-host"
    )
    assert "fewer steps or fewer pictures" in describe("too_much_work", detail="").hint
