"""Where to listen, as it is typed."""

from __future__ import annotations

import argparse

import pytest
from underpaint_backend.cli import place
from underpaint_backend.cli.place import Place


def parsed(*words: str) -> Place:
    """What these words of a command line mean."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    place.add_arguments(parser)
    listen: Place = parser.parse_args(words).listen
    return listen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Place("127.0.0.1", 8738)),
        (["--listen", "0.0.0.0:80"], Place("0.0.0.0", 80)),
        (["--listen", "[::1]:8738"], Place("::1", 8738)),
        (["--listen", "Box.example:0"], Place("box.example", 0)),
        (["--port", "9"], Place("127.0.0.1", 9)),
        (["--address", "::1", "--port", "9"], Place("::1", 9)),
        (["--listen", "10.0.0.1:80", "--port", "9"], Place("10.0.0.1", 9)),
        (["--port", "9", "--listen", "10.0.0.1:80"], Place("10.0.0.1", 80)),
        (["--port", "9", "--port", "10"], Place("127.0.0.1", 10)),
    ],
)
def test_the_last_word_counts(words: list[str], expected: Place) -> None:
    """The plugin appends the port at which it will look to whatever the daemon was started with before."""
    assert parsed(*words) == expected


@pytest.mark.parametrize("word", ["", "8738", "box", "box:", ":8738", "::1:8738", "[]:1", "[::1]", "b:x", "b:99999"])
def test_what_is_no_place_is_refused(word: str) -> None:
    """With the form that it should have, or the range of the port."""
    with pytest.raises(argparse.ArgumentError, match=r"must be (like|from 0 to 65535)"):
        parsed("--listen", word)


@pytest.mark.parametrize("place", [Place("10.0.0.1", 80), Place("::1", 0), Place("box.example", 65535)])
def test_a_place_is_written_as_it_is_read(place: Place) -> None:
    """So that a daemon can write down how it was started."""
    assert parsed("--listen", str(place)) == place


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_told_apart(host: str, loopback: bool) -> None:
    """A name other than localhost may lead anywhere."""
    assert Place(host).is_loopback() is loopback
    assert not Place("localhost.example").is_loopback()
