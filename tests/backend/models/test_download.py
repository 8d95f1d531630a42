"""Models on their way here, through a network that cuts, damages and lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from underpaint_backend.models.catalog import locate
from underpaint_backend.models.download import Patience
from underpaint_backend.models.store import Store

from tests.backend.models.downloads import pull, refused, snapshot, state
from tests.backend.models.hub import StandIn
from tests.backend.models.things import (
    BIG,
    REPOSITORY,
    UNET,
    WANTED,
    download,
    offer,
    weights,
)


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
