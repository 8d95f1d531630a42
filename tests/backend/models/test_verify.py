"""Whether what came is still what it was, and taking it away again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from underpaint_backend.models.catalog import locate
from underpaint_backend.models.exceptions import DownloadCancelled, ModelError
from underpaint_backend.models.removal import remove
from underpaint_backend.models.store import Store, partial_of
from underpaint_backend.models.verify import Finding, discard, verify

from tests.backend.models.hub import Repository, StandIn, stand_in
from tests.backend.models.things import (
    BIG,
    REPOSITORY,
    UNET,
    WANTED,
    brush,
    download,
    offer,
    offer_of_only,
    weights,
)

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def store(hub: StandIn, tmp_path: Path) -> Store:
    """A cache with the model in it."""
    download(hub, tmp_path).run(lambda progress: None, threading.Event())
    return Store(tmp_path)


def check(store: Store) -> dict[str, str]:
    return {finding.file.path: finding.problem for finding in findings(store)}


def findings(store: Store) -> list[Finding]:
    return verify(offer(), store, lambda path, size: None, threading.Event())


def test_every_file_is_read(store: Store) -> None:
    """Nothing is wrong, and each file was looked at, with its size."""
    heard: dict[str, int] = {}
    assert verify(offer(), store, heard.__setitem__, threading.Event()) == []
    assert set(heard) == WANTED
    assert heard[UNET] == BIG


@pytest.mark.parametrize("at", [0, BIG // 2, BIG - 1])
def test_one_bit_is_noticed(store: Store, at: int) -> None:
    """Wherever in the file it is, though size and name are right; and nothing else is blamed."""
    path = (store.snapshot(REPOSITORY, "c" * 40) / UNET).resolve()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert check(store) == {UNET: "damaged"}
    assert locate(offer(), store).model.state == "ready"  # sizes alone are looked at for each job
    discard(findings(store), store)
    assert check(store) == {UNET: "missing"}
    assert locate(offer(), store).model.state == "absent"
    assert not path.exists()


def test_what_discard_may_not_touch(store: Store, tmp_path: Path) -> None:
    """A link that leads out of the cache is taken away; what it leads to stays."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    path = store.snapshot(REPOSITORY, "c" * 40) / VAE
    path.unlink()
    path.symlink_to(precious)
    assert check(store) == {VAE: "damaged"}
    discard(findings(store), store)
    assert not path.exists()
    assert precious.read_bytes() == b"mine"


def test_files_of_unknown_hash_are_said_to_be_so(store: Store) -> None:
    """As another tool leaves them where links are impossible."""
    snapshot = store.snapshot(REPOSITORY, "c" * 40)
    (store.repository(REPOSITORY) / "trees" / f"{'c' * 40}.json").unlink()
    content = (snapshot / VAE).read_bytes()
    (snapshot / VAE).unlink()
    (snapshot / VAE).write_bytes(content)
    assert check(store) == {VAE: "unknown"}


def test_a_damaged_list_is_no_list(store: Store) -> None:
    """Then names of blobs are what is left to go by."""
    tree = store.repository(REPOSITORY) / "trees" / f"{'c' * 40}.json"
    for damage in (
        "",
        "{",
        "[]",
        '{"format_version": 1}',
        '{"format_version": 9, "files": {}}',
        '{"format_version": 1, "files": {"vae/config.json": {"size": 3, "blob_id": "../x"}}}',
    ):
        tree.write_text(damage)
        assert check(store) == {}, damage
        assert locate(offer(), store).model.state == "ready"


def test_reading_can_be_stopped(store: Store) -> None:
    """In the middle of a file."""
    stopped = threading.Event()
    with pytest.raises(DownloadCancelled):
        verify(offer(), store, lambda path, size: stopped.set(), stopped)


def test_removing_leaves_nothing(store: Store, hub: StandIn) -> None:
    """Neither what came nor what was on its way; and the number of bytes is told."""
    total = sum(len(hub.repositories[REPOSITORY].files[path]) for path in WANTED)
    removed = remove(offer(), store, [offer()])
    assert (removed.freed, removed.kept_for) == (total, ())
    assert not store.repository(REPOSITORY).exists()
    assert locate(offer(), store).model.state == "absent"


def test_removing_what_was_on_its_way(hub: StandIn, tmp_path: Path) -> None:
    """A download that was given up takes no room any more."""
    store = Store(tmp_path)
    hub.cuts[UNET] = [1000, 0, 0, 0]
    only = offer_of_only("unet/*")
    hub.repositories[REPOSITORY].files.pop("unet/config.json")
    with pytest.raises(ModelError):
        download(hub, tmp_path, only).run(lambda progress: None, threading.Event())
    assert not store.snapshot(REPOSITORY, "c" * 40).exists()
    (partial,) = tmp_path.rglob("*.incomplete")
    assert partial == partial_of(partial.with_suffix(""))
    remove(offer(), store, [])
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_shared_part_stays_for_the_other(tmp_path: Path) -> None:
    """Two repositories with the same VAE: removing one of them frees the bytes of the other parts only."""
    other = Repository({**brush().files, UNET: weights(77, BIG)}, commit="d" * 40)
    pencil = offer(id="pencil", repository="artist/pencil")
    with stand_in(artist__brush=brush(), artist__pencil=other) as hub:
        for given in (offer(), pencil):
            download(hub, tmp_path, given).run(lambda progress: None, threading.Event())
    store = Store(tmp_path)
    removed = remove(offer(), store, [offer(), pencil])
    assert BIG <= removed.freed < BIG + 20_000
    assert locate(pencil, store).model.state == "ready"
    assert verify(pencil, store, lambda path, size: None, threading.Event()) == []


def test_another_entry_that_is_not_whole_keeps_nothing(store: Store) -> None:
    """Only a model that can be used has a say in what stays."""
    wants_more = offer(id="more", variant="full")
    assert locate(wants_more, store).model.state == "absent"
    assert remove(offer(), store, [wants_more]).kept_for == ()
    assert not store.repository(REPOSITORY).exists()
