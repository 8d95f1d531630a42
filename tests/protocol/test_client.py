"""The client's core and the life of a job, byte by byte and without a socket."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_protocol.blobs import BlobStore, chunks, digest_of, image_of
from underpaint_protocol.client import ClientSession, Picture
from underpaint_protocol.errors import TABLE, describe, refusal_in
from underpaint_protocol.exceptions import BlobError, OutOfOrder
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    CHUNK,
    Accepted,
    BlobChunk,
    Cancelled,
    Done,
    Error,
    Failed,
    Progress,
    Request,
    Result,
    Submit,
    vocabulary,
)

PIXELS = bytes(range(64))
REQUEST = Request(model="m", task="text_to_image", width=4, height=4)
INTO = Request(model="m", task="inpaint", width=4, height=4, image=image_of(4, 4, 4, PIXELS))


def submitted(job: str = "a") -> ClientSession:
    session = ClientSession("test")
    list(session.submit(job, REQUEST))
    return session


def receive(session: ClientSession, *messages: Record) -> list[object]:
    return [event for message in messages for event in session.receive(vocabulary.encode(message))]


def test_pixels_go_before_the_request_that_names_them() -> None:
    """Submitting sends each blob in order and then the request."""
    frames = [vocabulary.decode(frame) for frame in ClientSession("t").submit("a", INTO, [PIXELS])]
    assert isinstance(frames[0], BlobChunk)
    assert frames[0].data == PIXELS
    assert frames[1] == Submit("a", INTO)


def test_a_request_without_its_pixels_is_refused_here() -> None:
    """A blob that the request names must be given."""
    with pytest.raises(BlobError):
        ClientSession("t").submit("a", INTO, [])


def test_a_job_cannot_be_submitted_twice() -> None:
    """An id that is running is refused before anything is sent."""
    with pytest.raises(OutOfOrder):
        submitted().submit("a", REQUEST)


def test_a_result_comes_with_its_pixels() -> None:
    """Chunks and a result become one picture."""
    session = submitted()
    result = Result("a", 0, 7, image_of(4, 4, 4, PIXELS))
    events = receive(session, Accepted("a", 0), *chunks(digest_of(PIXELS), PIXELS), result, Done("a", 1.0))
    assert events[1] == Picture("a", 0, 7, 4, 4, PIXELS)
    assert session.running == ()


def test_a_result_without_pixels_breaks_the_language() -> None:
    """A result whose blob never came is an error, not an empty picture."""
    session = submitted()
    receive(session, Accepted("a", 0))
    with pytest.raises(BlobError):
        receive(session, Result("a", 0, 7, image_of(4, 4, 4, PIXELS)))


def test_a_refused_job_is_not_running() -> None:
    """An error that names a job which was not accepted ends it in the client."""
    session = submitted()
    receive(session, Error(describe("unknown_model", detail="m"), "a"))
    assert session.running == ()


@pytest.mark.parametrize("end", [Done("a", 1.0), Failed("a", describe("internal")), Cancelled("a")])
def test_nothing_comes_after_the_end(end: Record) -> None:
    """Each job ends once; whatever follows breaks the language."""
    session = submitted()
    receive(session, Accepted("a", 0), end)
    with pytest.raises(OutOfOrder):
        receive(session, Progress("a", "denoising", 1.0))


@pytest.mark.parametrize(
    "messages",
    [
        [Progress("a", "loading", 0.0)],
        [Accepted("a", 0), Accepted("a", 0)],
        [Accepted("a", 0), Progress("a", "denoising", 0.5), Progress("a", "denoising", 0.4)],
    ],
)
def test_a_job_out_of_order_is_noticed(messages: list[Record]) -> None:
    """Anything before `accepted`, a second `accepted` and a falling fraction break the language."""
    with pytest.raises(OutOfOrder):
        receive(submitted(), *messages)


def test_a_message_of_a_later_version_is_passed_over() -> None:
    """A client survives a server that can say more."""
    assert list(ClientSession("t").receive(b"\x81\xa4type\xa5later")) == []


@given(st.binary(min_size=1, max_size=3 * CHUNK))
def test_blobs_survive_cutting_and_joining(data: bytes) -> None:
    """What is cut into chunks is put together again."""
    store = BlobStore(1 << 24)
    name = digest_of(data)
    finished = [store.add(chunk) for chunk in chunks(name, data)]
    assert finished[-1]
    assert not any(finished[:-1])
    assert store.take(name) == data
    assert store.bytes == 0


def test_a_blob_with_a_wrong_name_is_dropped() -> None:
    """Content that does not match its name is refused and forgotten."""
    store = BlobStore(1 << 20)
    with pytest.raises(BlobError):
        store.add(BlobChunk("0" * 32, 3, 0, b"abc"))
    assert store.bytes == 0


def test_a_gap_in_a_blob_is_noticed() -> None:
    """A piece that does not continue its blob is refused and the blob forgotten."""
    store = BlobStore(1 << 20)
    name = digest_of(b"abcdef")
    store.add(BlobChunk(name, 6, 0, b"ab"))
    with pytest.raises(BlobError):
        store.add(BlobChunk(name, 6, 4, b"ef"))
    assert store.bytes == 0


def test_the_store_is_bounded() -> None:
    """Old blobs make room for new ones; a blob that cannot fit is refused."""
    store = BlobStore(10)
    for data in (b"aaaaaa", b"bbbbbb"):
        store.add(BlobChunk(digest_of(data), 6, 0, data))
    assert digest_of(b"aaaaaa") not in store
    assert digest_of(b"bbbbbb") in store
    assert store.bytes == 6
    with pytest.raises(BlobError):
        store.add(BlobChunk("0" * 32, 11, 0, b"c"))


def test_a_blob_that_is_sent_again_counts_as_used() -> None:
    """What a client just sent is not the next thing to be dropped, even if it was here already."""
    store = BlobStore(12)
    old, newer, last = b"aaaa", b"bbbb", b"cccc"
    for data in (old, newer, last, old, b"dddd"):
        store.add(BlobChunk(digest_of(data), 4, 0, data))
    assert digest_of(old) in store
    assert digest_of(newer) not in store


def test_unfinished_blobs_cannot_fill_the_store() -> None:
    """Beginnings without ends are bounded like everything else."""
    store = BlobStore(10)
    store.add(BlobChunk("0" * 32, 6, 0, b"a"))
    with pytest.raises(BlobError):
        store.add(BlobChunk("1" * 32, 6, 0, b"a"))


@pytest.mark.parametrize("code", TABLE)
def test_every_error_has_a_sentence_and_a_hint(code: str) -> None:
    """Each line of the table can be told to an artist, with all its places filled."""
    error = describe(code, detail="because", model="Primer", known="ddim, euler")
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
