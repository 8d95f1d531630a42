"""A hub that is busy, gated, gone, wrong or malicious: each has its words, and none does harm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from underpaint_backend.models.store import Store

from tests.backend.models.downloads import pull, refused, state
from tests.backend.models.hub import StandIn, stand_in
from tests.backend.models.things import (
    PATIENCE,
    REPOSITORY,
    UNET,
    brush,
    download,
    offer,
    offer_of_only,
)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again(hub: StandIn, tmp_path: Path, status: int) -> None:
    """Whatever passes by itself is waited for, in the API, the files and their copies."""
    hub.answers = [("/api/", status, {}), ("/tree/", status, {}), ("/resolve/", status, {}), ("vae", status, {})]
    pull(download(hub, tmp_path))
    assert state(tmp_path) == "ready"
    assert hub.answers == []


def test_a_hub_that_says_how_long_is_obeyed(hub: StandIn, tmp_path: Path) -> None:
    """Retry-After is waited for."""
    hub.answers = [("/api/", 429, {"Retry-After": "0.4"})]
    start = time.monotonic()
    pull(download(hub, tmp_path))
    assert time.monotonic() - start >= 0.4


def test_a_hub_that_stays_busy_is_given_up(hub: StandIn, tmp_path: Path) -> None:
    """After some tries the error says what the hub said, and that trying again may help."""
    hub.answers = [("/api/", 503, {})] * 5
    error = refused(download(hub, tmp_path))
    assert error.info.code == "download_failed"
    assert "503" in error.info.message
    assert len(hub.asked) == PATIENCE.tries


def test_nobody_waits_for_an_hour(hub: StandIn, tmp_path: Path) -> None:
    """A Retry-After beyond all patience is an error at once."""
    hub.answers = [("/api/", 429, {"Retry-After": "3600"})]
    assert "429" in refused(download(hub, tmp_path)).info.message


def test_no_hub_at_all(tmp_path: Path, hub: StandIn) -> None:
    """If nobody listens there, that is said, with what there is for machines without a network."""
    error = refused(download(hub, tmp_path, endpoint="http://127.0.0.1:9"))
    assert error.info.code == "hub_unreachable"
    assert "http://127.0.0.1:9 cannot be reached: Connection refused" in error.info.message
    for way in ("HF_ENDPOINT", "HTTPS_PROXY", "docs/models.md"):
        assert way in error.info.hint


def test_a_name_that_nobody_knows(tmp_path: Path, hub: StandIn) -> None:
    """Without a network no name is, and the resolver's own words say nothing to an artist."""
    error = refused(download(hub, tmp_path, endpoint="https://nowhere.invalid"))
    assert error.info.code == "hub_unreachable"
    assert "https://nowhere.invalid cannot be reached: nobody here knows that address" in error.info.message


def test_offline_asks_nobody(hub: StandIn, tmp_path: Path) -> None:
    """What is not here is not fetched, and what is here is used."""
    error = refused(download(hub, tmp_path, offline=True))
    assert error.info.code == "working_offline"
    assert "HF_HUB_OFFLINE" in error.info.hint
    assert hub.asked == []
    pull(download(hub, tmp_path))
    pull(download(hub, tmp_path, offline=True))


@pytest.mark.parametrize(
    ("token", "accepted", "reason"),
    [
        (None, True, "no token was given"),
        ("hf_bad", True, "does not know the token"),
        ("hf_good", False, "has not accepted it"),
    ],
)
def test_a_gated_model_says_what_to_accept_and_where(
    hub: StandIn, tmp_path: Path, token: str | None, accepted: bool, reason: str
) -> None:
    """The error names the reason and the page, and not the token."""
    hub.repositories[REPOSITORY].gated = True
    hub.accepted = accepted
    error = refused(download(hub, tmp_path, offer(gated=True), token=token))
    assert error.info.code == "model_gated"
    assert reason in error.info.message
    assert f"https://huggingface.co/{REPOSITORY}" in error.info.hint
    assert "hf_bad" not in error.info.message + error.info.hint.replace("TOKEN", "")


def test_a_good_token_opens_a_gated_model_and_goes_nowhere_else(hub: StandIn, tmp_path: Path) -> None:
    """The hub's host alone hears the token; the copies to which it redirects do not."""
    hub.repositories[REPOSITORY].gated = True
    pull(download(hub, tmp_path, offer(gated=True), token="hf_good"))
    assert state(tmp_path) == "ready"
    assert {asked.authorization for asked in hub.requests("hub")} == {"Bearer hf_good"}
    assert hub.requests("cdn")
    assert {asked.authorization for asked in hub.requests("cdn")} == {None}


@pytest.mark.parametrize("where", ["http://example.org/weights", "file:///etc/passwd", "ftp://127.0.0.1/x", "//[", ""])
def test_a_redirect_to_a_place_without_encryption_is_not_followed(hub: StandIn, tmp_path: Path, where: str) -> None:
    """A file comes over https or not at all; plain http is for this machine."""
    hub.redirect_to = where or "http://example.org"
    error = refused(download(hub, tmp_path))
    assert error.info.code == "download_failed"
    assert "redirects to" in error.info.message


def test_redirects_in_a_circle_end(hub: StandIn, tmp_path: Path) -> None:
    """After a few of them the hub's answer counts as nonsense."""
    hub.redirect_to = f"{hub.url}/{REPOSITORY}/resolve/{'c' * 40}/{UNET}"
    assert "without end" in refused(download(hub, tmp_path)).info.message


def test_a_repository_that_is_not_there(hub: StandIn, tmp_path: Path) -> None:
    """It is named; without a token the hub does not say whether it is only closed."""
    elsewhere = offer(repository="artist/pencil")
    assert "there is no repository artist/pencil" in refused(download(hub, tmp_path, elsewhere)).info.message
    assert (
        "has no repository artist/pencil" in refused(download(hub, tmp_path, elsewhere, token="hf_good")).info.message
    )


def test_a_revision_that_is_not_there(hub: StandIn, tmp_path: Path) -> None:
    """It is named."""
    error = refused(download(hub, tmp_path, offer(revision="v9")))
    assert "has no revision v9" in error.info.message


def test_a_repository_without_the_files(hub: StandIn, tmp_path: Path) -> None:
    """What is missing is said before anything is fetched."""
    error = refused(download(hub, tmp_path, offer_of_only("model_index.json", "transformer/*")))
    assert f"{REPOSITORY} has no transformer/*" in error.info.message
    assert not hub.requests("hub", "/resolve/")


def test_a_repository_with_nothing_but_pickles(hub: StandIn, tmp_path: Path) -> None:
    """Weights that can run programs do not count as weights."""
    hub.repositories[REPOSITORY].files = {"unet/pytorch_model.bin": b"x"}
    assert "has no unet/*" in refused(download(hub, tmp_path, offer_of_only("unet/*"))).info.message


def test_a_pinned_commit_is_fetched_exactly(hub: StandIn, tmp_path: Path) -> None:
    """Nobody asks where the branch is, and none is written down."""
    pull(download(hub, tmp_path, offer(revision="c" * 40)))
    assert not hub.requests("hub", "/revision/")
    assert not (Store(tmp_path).repository(REPOSITORY) / "refs").exists()


def test_a_long_list_of_files_comes_in_pages(hub: StandIn, tmp_path: Path) -> None:
    """All pages are read."""
    hub.page = 2
    pull(download(hub, tmp_path))
    assert len(hub.requests("hub", "/tree/")) == 10
    assert state(tmp_path) == "ready"


EVIL = [
    "../escaped.json",
    "/tmp/escaped.json",
    "unet/../../escaped.json",
    "unet\\..\\..\\escaped.json",
    "C:/escaped.json",
    "unet//x.json",
    "unet/./x.json",
    "unet/x\0.json",
    "unet/... /x.json",
    "unet/x.json:stream",
    "",
    "x" * 500,
]


@pytest.mark.parametrize("path", EVIL)
def test_no_name_from_the_network_leaves_the_folder(hub: StandIn, tmp_path: Path, path: str) -> None:
    """A list with such a name is refused as a whole, and nothing is written."""
    listing = hub.repositories[REPOSITORY].listing()
    hub.listing_instead = [*listing, {"type": "file", "path": path, "size": 2, "oid": "0" * 40}]
    error = refused(download(hub, tmp_path / "cache", offer(files=["*", "*/*"])))
    assert "which no file may have" in error.info.message
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("wrong", ["../../../../x", "A" * 64, "0" * 63, "", None, 7])
def test_no_hash_from_the_network_leaves_the_folder(hub: StandIn, tmp_path: Path, wrong: object) -> None:
    """A hash names a file here, so it must be one."""
    listing = hub.repositories[REPOSITORY].listing()
    listing[0]["oid"] = wrong
    hub.listing_instead = listing
    assert refused(download(hub, tmp_path / "cache")).info.code == "download_failed"
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("answer", [b"[", b"null", b"[1]", b'[{"type": "file"}]', b'{"a": ' * 5000, b"\xff"])
def test_nonsense_from_the_hub_is_an_error_in_words(tmp_path: Path, answer: bytes) -> None:
    """Whatever it answers, it is the hub's fault and is told as such."""
    with stand_in(artist__brush=brush()) as hub:
        hub.repositories[REPOSITORY].listing = lambda: answer  # type: ignore[method-assign, assignment, return-value]
        hub.page = 1 << 20
        error = refused(download(hub, tmp_path, offer(revision="c" * 40)))
    assert error.info.code == "download_failed"
    assert hub.url in error.info.message


def test_a_link_in_the_place_of_a_partial_file_is_not_followed(hub: StandIn, tmp_path: Path) -> None:
    """What lies where another's link leads stays as it is."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    hub.cuts[UNET] = [1000, 0, 0, 0]
    refused(download(hub, tmp_path / "cache"))
    (partial,) = tmp_path.rglob("*.incomplete")
    partial.unlink()
    partial.symlink_to(precious)
    hub.cuts.clear()
    pull(download(hub, tmp_path / "cache"))
    assert precious.read_bytes() == b"mine"
    assert state(tmp_path / "cache") == "ready"
