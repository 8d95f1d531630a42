"""What the docker says."""

from __future__ import annotations

import dataclasses

import pytest
from underpaint_krita import sentences
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita._vendor.underpaint_protocol.errors import describe

LOST = describe("disconnected")
AWAY = describe("unreachable", detail="ws://there")


@pytest.mark.parametrize(
    ("position", "sentence"),
    [(0, "Yours is the next picture."), (1, "1 picture before yours"), (3, "3 pictures before yours")],
)
def test_the_place_in_the_queue(position: int, sentence: str) -> None:
    """Counted in pictures."""
    assert sentences.queue_place(position) == sentence


@pytest.mark.parametrize(
    ("error", "seconds", "waiting", "sentence"),
    [
        (LOST, 3.2, True, "The connection was lost. Your picture goes on; trying again in 3 s…"),
        (LOST, 0.2, False, "The connection to the daemon was lost. Trying again…"),
        (
            AWAY,
            15.0,
            True,
            "Underpaint's daemon is not running at ws://there. Your picture is not lost; trying again in 15 s…",
        ),
    ],
)
def test_reconnecting(error: m.ErrorInfo, seconds: float, waiting: bool, sentence: str) -> None:
    """Why, what becomes of the picture, and when."""
    assert sentences.reconnecting(error, seconds, waiting) == sentence


def test_a_server_that_is_not_the_artists_own_daemon() -> None:
    """Starting a daemon here would not help: it is the server that is away, or the tunnel to it."""
    told = sentences.elsewhere(AWAY, "ws://there")
    assert told.message == "The server at ws://there does not answer: it, or the tunnel to it, is not up."
    assert told.hint == "Start what is missing there, or correct the address."
    assert (told.code, told.retryable) == (AWAY.code, AWAY.retryable)
    assert sentences.elsewhere(LOST, "ws://there") == LOST


def test_progress() -> None:
    """The phase in words, and the step where there are steps."""
    assert sentences.progress(m.Progress("a", "denoising", 0.5, 3, 12)) == "Painting, step 3 of 12"
    assert sentences.progress(m.Progress("a", "loading", 0.1)) == "Loading the model"
    assert sentences.progress(m.Progress("a", "loading", 0.1), again=True).startswith("Loading the model (once more")
    assert set(sentences.PHASES) == set(m.PHASES)


def test_another_attempt_says_what_is_known_of_the_first() -> None:
    """With the connection kept it was the painting process; else the daemon may have stopped, or only the line."""
    event = m.Progress("a", "denoising", 0.5, 3, 12)
    assert sentences.once_more(lost=False) == "The painting process stopped; trying once more."
    assert sentences.once_more(lost=True) == "The painting was interrupted; trying once more."
    assert sentences.progress(event, again=True).endswith("12 (once more: the painting process had stopped)")
    assert sentences.progress(event, again=True, lost=True).endswith("12 (once more: it was interrupted)")
    assert sentences.progress(event, lost=True) == "Painting, step 3 of 12"


def test_the_end_says_how_long_it_was_painted() -> None:
    """Not how long the artist waited, nor how long it took when it came to nothing."""
    assert sentences.done(4.12) == "Done. Painting took 4.1 s."
    assert sentences.done(4.12, again=True) == "Done. Painting took 4.1 s this time."


@pytest.mark.parametrize("state", m.WORKER_STATES)
def test_every_state_of_a_worker_has_a_sentence(state: str) -> None:
    """With the device, where that is known."""
    assert sentences.worker(m.Status(m.Worker(state, "cpu", "no weights"))).startswith(("Ready on cpu", "Underpaint"))


def test_a_daemon_that_is_stopped_says_so() -> None:
    """Whatever its worker does."""
    assert sentences.worker(m.Status(m.Worker("ready"), draining=True)) == sentences.DRAINING


def test_a_kept_picture_is_called_by_its_prompt() -> None:
    """On one line, and not at length."""
    said = sentences.kept("a very long\nprompt " * 10, "/there.png")
    assert said.startswith("The picture “a very long prompt a very long prompt a…” was finished")
    assert said.endswith("/there.png")
    assert sentences.kept("", "/there.png").startswith("A picture was")


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "1 MB"), (480_000_000, "480 MB"), (2_134_000_000, "2.1 GB"), (33_800_000_000, "34 GB")],
)
def test_sizes(count: int, words: str) -> None:
    """In units of ten, as disks and hubs count, and not more precisely than anybody cares."""
    assert sentences.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59.0, "59 s"), (150.0, "2 min"), (3600.0, "60 min"), (9000.0, "2 h")]
)
def test_the_time_that_a_download_takes(seconds: float, words: str) -> None:
    """In the unit that says enough."""
    said = sentences.pulling("Large", m.Pulling("large", 10**9, 2 * 10**9, seconds))
    assert said == f"Fetching Large: 1.0 GB of 2.0 GB, {words} left"


def test_a_model_of_which_little_is_known() -> None:
    """Neither its size nor its licence: nothing is made up."""
    bare = m.Model("m", "M", "f", ("inpaint",), ("ddim",), 16384, 8, 12, 3.0, "ddim", state="absent")
    assert sentences.in_the_list(bare) == "M · to be fetched"
    assert sentences.about(bare) == "It has to be fetched first."
    assert sentences.to_accept_first(bare) is None
    gated = dataclasses.replace(bare, gated=True, detail="its files have to be fetched")
    assert sentences.to_accept_first(gated) == (
        "Whoever fetches it has to accept its licence on the hub first; Fetch tells where."
    )
