"""Models on their way here, through a network that does everything that networks do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from underpaint_backend.models.catalog import locate
from underpaint_backend.models.download import MARGIN, Download, Patience, Progress
from underpaint_backend.models.exceptions import DownloadCancelled, ModelError
from underpaint_backend.models.hub import Settings
from underpaint_backend.models.store import Store

from tests.backend.models.hub import Repository, StandIn, stand_in
from tests.backend.models.things import (
    BIG,
    PATIENCE,
    REPOSITORY,
    UNET,
    WANTED,
    brush,
    download,
    offer,
    weights,
)


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with stand_in(artist__brush=brush()) as running:
        yield running


def pull(given: Download, cancelled: threading.Event | None = None) -> list[Progress]:
    heard: list[Progress] = []
    given.run(heard.append, cancelled or threading.Event())
    return heard


def refused(given: Download) -> ModelError:
    with pytest.raises(ModelError) as refusal:
        pull(given)
    return refusal.value


def state(root: Path) -> str:
    return locate(offer(), Store(root)).model.state


def snapshot(root: Path) -> Path:
    return Store(root).snapshot(REPOSITORY, "c" * 40)


def test_what_is_needed_comes_and_nothing_else(hub: StandIn, tmp_path: Path) -> None:
    """Half precision where there is such; no pickles, and not the same weights in another form."""
    assert state(tmp_path) == "absent"
    pull(download(hub, tmp_path))
    here = {path.relative_to(snapshot(tmp_path)).as_posix() for path in snapshot(tmp_path).rglob("*.*")}
    assert here == WANTED
    files = hub.repositories[REPOSITORY].files
    assert all((snapshot(tmp_path) / path).read_bytes() == files[path] for path in WANTED)
    assert state(tmp_path) == "ready"
    assert locate(offer(), Store(tmp_path)).folder == snapshot(tmp_path)


def test_what_is_here_is_not_asked_for(hub: StandIn, tmp_path: Path) -> None:
    """A second pull makes no request at all."""
    pull(download(hub, tmp_path))
    hub.asked.clear()
    pull(download(hub, tmp_path))
    assert hub.asked == []


def test_a_folder_of_one_s_own_comes_first(hub: StandIn, tmp_path: Path) -> None:
    """A repository that somebody copied into a folder of models is used without a request."""
    root = tmp_path / "models"
    for path in WANTED:
        (root / "brush" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "brush" / path).write_bytes(hub.repositories[REPOSITORY].files[path])
    found = locate(offer(), Store(tmp_path / "hub"), [root])
    assert (found.model.state, found.folder) == ("ready", root / "brush")
    (root / "brush" / UNET).unlink()
    assert locate(offer(), Store(tmp_path / "hub"), [root]).model.state == "absent"


def test_progress_counts_every_byte_once(hub: StandIn, tmp_path: Path) -> None:
    """It never goes back, ends with all of it, and says how fast it was."""
    total = sum(len(hub.repositories[REPOSITORY].files[path]) for path in WANTED)
    heard = pull(download(hub, tmp_path))
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)
    assert (heard[-1].done, heard[-1].total) == (total, total)
    assert heard[-1].bytes_per_second > 0
    assert heard[-1].seconds_left == 0


def test_a_cut_download_goes_on_where_it_stopped(hub: StandIn, tmp_path: Path) -> None:
    """Every byte is sent once, and no more, however often the line is cut."""
    hub.cuts[UNET] = [1_000_000, 500_000, 1]
    pull(download(hub, tmp_path, patience=Patience(3, 0.01, 1.0)))
    assert (snapshot(tmp_path) / UNET).read_bytes() == weights(3, BIG)
    assert [asked.range for asked in hub.requests("cdn", "unet")] == [
        None,
        "bytes=1000000-",
        "bytes=1500000-",
        "bytes=1500001-",
    ]
    assert hub.bytes_sent == sum(len(hub.repositories[REPOSITORY].files[path]) for path in WANTED)


def test_a_download_goes_on_the_next_day(hub: StandIn, tmp_path: Path) -> None:
    """What came is kept when all tries are used up, and only the rest is asked for later."""
    hub.cuts[UNET] = [1_000_000, 0, 0, 0]
    error = refused(download(hub, tmp_path))
    assert error.info.code == "download_failed"
    assert error.info.retryable
    assert state(tmp_path) == "absent"
    hub.cuts.clear()
    hub.asked.clear()
    heard = pull(download(hub, tmp_path))
    assert [asked.range for asked in hub.requests("cdn")] == ["bytes=1000000-", None]
    assert heard[-1].done == heard[-1].total
    assert state(tmp_path) == "ready"


def test_a_server_without_ranges_begins_anew(hub: StandIn, tmp_path: Path) -> None:
    """What comes from the beginning is not put behind what was there."""
    hub.cuts[UNET] = [1_000_000]
    hub.ranges = False
    heard = pull(download(hub, tmp_path))
    assert (snapshot(tmp_path) / UNET).read_bytes() == weights(3, BIG)
    assert heard[-1].done == heard[-1].total


def test_a_damaged_beginning_is_fetched_again(hub: StandIn, tmp_path: Path) -> None:
    """If the disk lost what a former try had brought, the file comes from its first byte."""
    hub.cuts[UNET] = [1_000_000, 0, 0, 0]
    refused(download(hub, tmp_path))
    (partial,) = tmp_path.rglob("*.incomplete")
    partial.write_bytes(bytes(1_000_000))
    hub.cuts.clear()
    heard = pull(download(hub, tmp_path))
    assert (snapshot(tmp_path) / UNET).read_bytes() == weights(3, BIG)
    assert heard[-1].done == heard[-1].total


def test_wrong_bytes_are_deleted(hub: StandIn, tmp_path: Path) -> None:
    """A file whose hash is not the one that the hub told never gets its name."""
    hub.sent_instead[UNET] = weights(99, BIG)
    error = refused(download(hub, tmp_path))
    assert error.info.code == "download_wrong"
    assert UNET in error.info.message
    assert not (snapshot(tmp_path) / UNET).exists()
    assert not list(tmp_path.rglob("*.incomplete"))
    assert state(tmp_path) == "absent"


def test_wrong_texts_are_deleted_too(hub: StandIn, tmp_path: Path) -> None:
    """Small files are checked as well, by Git's hash."""
    hub.sent_instead["unet/config.json"] = b'{"unet": 2}'
    assert refused(download(hub, tmp_path)).info.code == "download_wrong"


@pytest.mark.parametrize("size", [BIG - 1, BIG + 1, 10, 0])
def test_a_size_that_is_a_lie_is_found_out(hub: StandIn, tmp_path: Path, size: int) -> None:
    """A file that is longer or shorter than announced is refused before it fills the disk."""
    hub.sent_instead[UNET] = weights(3, BIG + 1)[:size]
    error = refused(download(hub, tmp_path))
    assert error.info.code == "download_wrong"
    assert f"{size} bytes" in error.info.message


def test_nothing_half_looks_whole(hub: StandIn, tmp_path: Path) -> None:
    """As long as one file is missing, a model is absent, and other tools see no index of it."""
    hub.answers = [("vae/diffusion", 404, {"X-Error-Code": "EntryNotFound"})]
    error = refused(download(hub, tmp_path))
    assert "lists a file that it does not have" in error.info.message
    assert (snapshot(tmp_path) / UNET).is_file()
    assert not (snapshot(tmp_path) / "model_index.json").exists()
    assert state(tmp_path) == "absent"
    assert not (Store(tmp_path).repository(REPOSITORY) / "refs" / "main").exists()


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
    error = refused(download(hub, tmp_path, offer(files=["model_index.json", "transformer/*"])))
    assert f"{REPOSITORY} has no transformer/*" in error.info.message
    assert not hub.requests("hub", "/resolve/")


def test_a_repository_with_nothing_but_pickles(hub: StandIn, tmp_path: Path) -> None:
    """Weights that can run programs do not count as weights."""
    hub.repositories[REPOSITORY].files = {"unet/pytorch_model.bin": b"x"}
    assert "has no unet/*" in refused(download(hub, tmp_path, offer(files=["unet/*"]))).info.message


def test_a_pinned_commit_is_fetched_exactly(hub: StandIn, tmp_path: Path) -> None:
    """Nobody asks where the branch is, and none is written down."""
    pull(download(hub, tmp_path, offer(revision="c" * 40)))
    assert not hub.requests("hub", "/revision/")
    assert not (Store(tmp_path).repository(REPOSITORY) / "refs").exists()


def test_a_long_list_of_files_comes_in_pages(hub: StandIn, tmp_path: Path) -> None:
    """All pages are read."""
    hub.page = 2
    pull(download(hub, tmp_path))
    assert len(hub.requests("hub", "/tree/")) == 8
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


def test_cancelling_in_the_middle(hub: StandIn, tmp_path: Path) -> None:
    """A download of which nothing comes any more stops at once, and goes on from there later."""
    hub.hold_after = 1 << 20
    cancelled = threading.Event()
    ended: list[float] = []

    def run() -> None:
        with pytest.raises(DownloadCancelled):
            pull(download(hub, tmp_path), cancelled)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    assert hub.held.wait(10)
    time.sleep(0.1)
    asked = time.monotonic()
    cancelled.set()
    thread.join(10)
    assert ended
    assert ended[0] - asked < 0.3
    assert state(tmp_path) == "absent"
    hub.hold_after = None
    hub.asked.clear()
    pull(download(hub, tmp_path))
    assert hub.requests("cdn", "unet")[0].range == f"bytes={1 << 20}-"
    assert state(tmp_path) == "ready"


def test_cancelling_while_waiting_for_a_busy_hub(hub: StandIn, tmp_path: Path) -> None:
    """Patience ends where somebody says stop."""
    hub.answers = [("/api/", 503, {"Retry-After": "60"})]
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    start = time.monotonic()
    with pytest.raises(DownloadCancelled):
        pull(download(hub, tmp_path, patience=Patience(3, 1, 100)), cancelled)
    assert time.monotonic() - start < 5


def test_a_full_disk_is_noticed_before_anything_comes(hub: StandIn, tmp_path: Path) -> None:
    """The error has both numbers."""
    error = refused(download(hub, tmp_path, free=lambda _: MARGIN + 1000))
    assert error.info.code == "disk_full"
    assert "3.2 MB are to come" in error.info.message
    assert not hub.requests("hub", "/resolve/")


def test_what_is_here_already_needs_no_room(hub: StandIn, tmp_path: Path) -> None:
    """Only what is missing has to fit."""
    hub.cuts[UNET] = [BIG - 10, 0, 0, 0]
    refused(download(hub, tmp_path))
    hub.cuts.clear()
    rest = 10 + 20_000 + len(hub.repositories[REPOSITORY].files["model_index.json"])
    assert refused(download(hub, tmp_path, free=lambda _: MARGIN + 5)).info.code == "disk_full"
    pull(download(hub, tmp_path, free=lambda _: MARGIN + rest + 100))


LIMITED = """
import resource, sys, threading
from pathlib import Path
from underpaint_backend.models.exceptions import ModelError
from tests.backend.models.things import download
from tests.backend.models.hub import StandIn
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
hub = StandIn(url=sys.argv[1])
try:
    download(hub, Path(sys.argv[2])).run(lambda progress: None, threading.Event())
except ModelError as error:
    print(error.info.code, error.info.message)
"""


def test_a_disk_that_fills_in_the_middle(hub: StandIn, tmp_path: Path) -> None:
    """Where a file can grow no more, that is said; it goes on once there is room."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, hub.url, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.startswith("disk_full"), run.stdout + run.stderr
    assert state(tmp_path) == "absent"
    hub.asked.clear()
    pull(download(hub, tmp_path))
    assert hub.requests("cdn", "unet")[0].range == f"bytes={1 << 20}-"


def test_a_cache_that_cannot_be_written_is_said(hub: StandIn, tmp_path: Path) -> None:
    """A file where the folder should be is no reason for a traceback."""
    (tmp_path / "cache").write_text("")
    error = refused(download(hub, tmp_path / "cache"))
    assert "the cache of models cannot be written" in error.info.message


def test_two_at_once_fetch_each_file_once(hub: StandIn, tmp_path: Path) -> None:
    """Whoever comes second waits for the first and uses what it brought."""
    threads = [threading.Thread(target=pull, args=(download(hub, tmp_path),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert state(tmp_path) == "ready"
    assert hub.bytes_sent == sum(len(hub.repositories[REPOSITORY].files[path]) for path in WANTED)


def test_who_waits_for_another_can_be_cancelled(hub: StandIn, tmp_path: Path) -> None:
    """The one that fetches goes on."""
    hub.hold_after = 1 << 20
    first = threading.Thread(target=pull, args=(download(hub, tmp_path),))
    first.start()
    assert hub.held.wait(10)
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    with pytest.raises(DownloadCancelled):
        pull(download(hub, tmp_path), cancelled)
    hub.hold_after = None
    hub.release.set()
    first.join(30)
    assert state(tmp_path) == "ready"


def test_parts_that_models_share_are_fetched_once(tmp_path: Path) -> None:
    """The same text encoder in another repository is taken from there, and takes no more room."""
    shared = brush()
    other = Repository({**brush().files, UNET: weights(77, BIG)}, commit="d" * 40)
    with stand_in(artist__brush=shared, artist__pencil=other) as hub:
        pull(download(hub, tmp_path))
        hub.asked.clear()
        pull(download(hub, tmp_path, offer(id="pencil", repository="artist/pencil")))
        assert [asked.path for asked in hub.requests("cdn")] == [f"/artist/pencil/{UNET}"]
    one, two = (
        Store(tmp_path).snapshot(name, commit) for name, commit in ((REPOSITORY, "c" * 40), ("artist/pencil", "d" * 40))
    )
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (one / vae).stat().st_ino == (two / vae).stat().st_ino
    assert (two / UNET).read_bytes() == weights(77, BIG)


def test_parts_from_several_repositories(tmp_path: Path) -> None:
    """A model is there when all of them are, and says where each part lies."""
    adapter = Repository(
        {
            "models/eye/config.json": b"{}",
            "models/eye/model.safetensors": weights(8),
            "models/hand.safetensors": weights(9),
            "models/hand.bin": b"",
        },
        commit="e" * 40,
    )
    both = offer(
        also=[
            {
                "repository": "artist/adapter",
                "files": ["models/eye/*", "models/hand.safetensors"],
                "parts": {"eye": "models/eye", "hand": "models/hand.safetensors"},
            }
        ]
    )
    with stand_in(artist__brush=brush(), artist__adapter=adapter) as hub:
        pull(download(hub, tmp_path))
        assert locate(both, Store(tmp_path)).model.state == "absent"
        hub.asked.clear()
        pull(download(hub, tmp_path, both))
        assert not hub.requests("hub", REPOSITORY)
    entry = locate(both, Store(tmp_path))
    folder = Store(tmp_path).snapshot("artist/adapter", "e" * 40)
    assert entry.model.state == "ready"
    assert entry.elsewhere == {"eye": folder / "models/eye", "hand": folder / "models/hand.safetensors"}
    assert entry.elsewhere["hand"].read_bytes() == weights(9)


HUB_TOOL = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("artist/brush", cache_dir=sys.argv[1], allow_patterns=sys.argv[3:],
                        local_files_only=sys.argv[2] == "local"))
"""


def hub_tool(hub: StandIn, cache: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(cache.parent / "home"),
    }
    words = (sys.executable, "-c", HUB_TOOL, str(cache), *words)
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_other_tools_find_what_was_fetched(hub: StandIn, tmp_path: Path) -> None:
    """The hub's own library, asked for the same files without the network, answers with our snapshot."""
    pull(download(hub, tmp_path / "hub"))
    hub.asked.clear()
    assert hub_tool(hub, tmp_path / "hub", "local", *sorted(WANTED)) == str(snapshot(tmp_path / "hub"))
    assert hub.asked == []


def test_what_other_tools_fetched_is_found(hub: StandIn, tmp_path: Path) -> None:
    """A model that the hub's own library brought is ready without a request."""
    hub_tool(hub, tmp_path / "hub", "remote", "*.json", "*.txt", "*.safetensors")
    hub.asked.clear()
    pull(download(hub, tmp_path / "hub"))
    assert hub.asked == []
    assert state(tmp_path / "hub") == "ready"


def test_what_other_tools_fetched_in_part_is_completed(hub: StandIn, tmp_path: Path) -> None:
    """Only the rest comes."""
    hub_tool(hub, tmp_path / "hub", "remote", "unet/*")
    assert state(tmp_path / "hub") == "absent"
    hub.asked.clear()
    pull(download(hub, tmp_path / "hub"))
    assert not hub.requests("cdn", "unet")
    assert state(tmp_path / "hub") == "ready"


def test_where_links_are_impossible_files_move(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows without the right to make links: the model is whole, once, and not fetched again."""

    def no_link(self: Path, target: object, target_is_directory: bool = False) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", no_link)
    pull(download(hub, tmp_path))
    assert state(tmp_path) == "ready"
    assert not (snapshot(tmp_path) / UNET).is_symlink()
    assert not list((Store(tmp_path).repository(REPOSITORY) / "blobs").iterdir())
    hub.asked.clear()
    pull(download(hub, tmp_path))
    assert hub.asked == []


def test_a_mirror_is_asked_instead(hub: StandIn, tmp_path: Path) -> None:
    """An endpoint may have a path of its own."""
    with pytest.raises(ModelError):
        pull(download(hub, tmp_path, endpoint=f"{hub.url}/mirror"))
    assert hub.asked[0].path == f"/mirror/api/models/{REPOSITORY}/revision/main"


@pytest.mark.parametrize(
    "address",
    ["http://example.org", "ftp://x", "huggingface.co", "https://", "https://me:secret@host", "https://h?x=1"],
)
def test_an_address_that_is_no_hub_is_refused(address: str) -> None:
    """Plain http is only for this machine."""
    with pytest.raises(ValueError, match="address"):
        Settings(address)


def test_a_newer_commit_is_used_once_it_is_whole(hub: StandIn, tmp_path: Path) -> None:
    """While it is on its way, the old one stays what is used; what did not change is not fetched again."""
    pull(download(hub, tmp_path))
    repository = hub.repositories[REPOSITORY]
    repository.commit = "d" * 40
    repository.files["vae/diffusion_pytorch_model.safetensors"] = weights(44)
    hub.answers = [("vae/diffusion", 404, {"X-Error-Code": "EntryNotFound"})]
    hub.asked.clear()
    refused(download(hub, tmp_path, update=True))
    assert locate(offer(), Store(tmp_path)).folder == snapshot(tmp_path)
    hub.answers = []
    pull(download(hub, tmp_path, update=True))
    assert locate(offer(), Store(tmp_path)).folder == Store(tmp_path).snapshot(REPOSITORY, "d" * 40)
    assert not hub.requests("cdn", "unet")
