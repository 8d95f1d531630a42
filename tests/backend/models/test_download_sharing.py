"""What models share, what other tools fetched, and where else it can come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from underpaint_backend.models.catalog import locate
from underpaint_backend.models.exceptions import ModelError
from underpaint_backend.models.hub import Settings
from underpaint_backend.models.store import Store

from tests.backend.models.downloads import pull, refused, snapshot, state
from tests.backend.models.hub import Repository, StandIn, stand_in
from tests.backend.models.things import (
    BIG,
    REPOSITORY,
    UNET,
    WANTED,
    brush,
    download,
    offer,
    weights,
)


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
