"""A model that has to be fetched first, from the list to the first picture, with the stand-in for the hub."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from underpaint_backend.launch import launched
from underpaint_backend.models.catalog import DESCRIPTION, default_roots

from tests.backend.models.hub import Repository, StandIn, stand_in

from .conftest import PHOTOGRAPHS, PICTURES, use_server
from .launch import Krita, Performance

PRIMER = default_roots()[0] / "primer_inpaint"
HALF = 6 << 20
"""Bytes of the largest file that come before the stop."""
PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
PATIENCE = 240.0
MODELS = (
    {"id": "brush", "name": "Brush from the hub", "repository": "artist/brush", "download": 15_214_000},
    {
        "id": "gated",
        "name": "Brush with a licence",
        "repository": "artist/gated",
        "gated": True,
        "licence": "Ask first",
    },
    {"id": "large", "name": "Brush for giants", "repository": "artist/large", "parameters": {"denoiser": 90_000}},
)


def repository(**changes: Any) -> Repository:
    """The built-in model, as if somebody had published it."""
    files = [path for path in PRIMER.rglob("*") if path.is_file() and path.name != DESCRIPTION]
    return Repository({path.relative_to(PRIMER).as_posix(): path.read_bytes() for path in files}, **changes)


def own_models() -> str:
    """The three models as a user writes them down: one to be had, one with a licence, and one that does not fit."""
    common = json.loads((PRIMER / DESCRIPTION).read_text()) | {"download": 15_000_000}
    files = ["model_index.json", *(f"{part}/*" for part in PARTS)]
    tables = [common | {"files": files} | changes for changes in MODELS]
    return "".join("[[model]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in table.items()) for table in tables)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    with stand_in(artist__brush=repository(), artist__gated=repository(gated=True)) as running:
        running.hold_after = HALF
        yield running


@pytest.fixture(scope="module")
def seen(krita: Krita, hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Performance]:
    """What happened in Krita, with an Underpaint of its own whose user knows three more models."""
    home = tmp_path_factory.mktemp("underpaint")
    (home / "models.toml").write_text(own_models(), encoding="utf-8")
    go_on = home / "seen"
    over = threading.Event()

    def let_through() -> None:
        while not go_on.exists():
            if over.wait(0.05):
                return
        hub.hold_after = None
        hub.release.set()

    thread = threading.Thread(target=let_through)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(home / "hub"))
        with launched(home, "--threads", "1") as daemon:
            use_server(home, daemon.url)
            environment = {
                "UNDERPAINT_HOME": str(home),
                "UNDERPAINT_PHOTOGRAPH": str(PHOTOGRAPHS / "coffee.jpg"),
                "UNDERPAINT_PICTURES": str(PICTURES),
                "UNDERPAINT_SEEN": str(go_on),
            }
            try:
                performance = krita.play("fetch", tmp_path_factory.mktemp("fetch"), environment, timeout=PATIENCE)
            finally:
                over.set()
                thread.join()
            assert performance.errors == [], performance.output + daemon.log.read_text()[-3000:]
            yield performance


def test_the_list_begins_with_what_is_ready(seen: Performance) -> None:
    """Then comes what can be fetched, with size and licence, and last what does not fit, which cannot be chosen."""
    texts, can_be_chosen = zip(*seen.facts["list"], strict=True)
    assert seen.facts["chosen_at_first"] == texts[0] == "Primer (built in)"
    assert "Brush from the hub · 15 MB to fetch, MIT" in texts
    assert "Brush with a licence · 15 MB to fetch, Ask first (to be accepted)" in texts
    assert any(text.startswith("Brush for giants · does not fit: it needs ") for text in texts)
    unfit = [" · does not fit: " in text for text in texts]
    assert unfit == sorted(unfit)
    assert [not can for can in can_be_chosen] == unfit


def test_what_does_not_fit_says_why(seen: Performance) -> None:
    """With the numbers."""
    assert seen.facts["why"].startswith("Brush for giants does not fit: it needs ")
    assert "GiB" in seen.facts["why"]


def test_a_licence_is_spoken_of_before_and_after(seen: Performance) -> None:
    """Where to accept it is an address that opens the browser."""
    address = "https://huggingface.co/artist/gated"
    assert address in seen.facts["gated"]["sentence"]
    assert seen.facts["refused"]["sentence"].startswith("The model “gated” is given only to those who accepted its")
    assert f'<a href="{address}"' in seen.facts["refused_links"]
    assert seen.facts["refused"]["buttons"] == ["fetch"]


def test_fetch_takes_the_place_of_generate(seen: Performance) -> None:
    """With the size and the licence."""
    assert seen.facts["offered"]["buttons"] == ["fetch"]
    assert seen.facts["offered"]["fetch"] == "Fetch 15 MB (MIT)"


def test_bytes_and_a_stop_are_shown(seen: Performance) -> None:
    """While it comes; and the docker does not grow wider with what it says."""
    coming = seen.facts["coming"]
    assert coming["sentence"].startswith("Fetching Brush from the hub: ")
    assert "of 15 MB" in coming["sentence"]
    assert coming["buttons"] == ["fetch", "stop"]
    assert 0 < coming["bar"] < 1000
    assert len({seen.facts[when]["width"] for when in ("offered", "coming", "refused", "fetched")}) == 1


def test_a_stopped_model_can_be_fetched_again(seen: Performance, hub: StandIn) -> None:
    """It goes on where it was stopped."""
    assert seen.facts["stopped"]["buttons"] == ["fetch"]
    ranges = [asked.range for asked in hub.requests("cdn", "brush/unet")]
    assert ranges[:2] == [None, f"bytes={HALF}-"]


def test_the_model_is_chosen_and_ready(seen: Performance) -> None:
    """Once it is there, which is said; and what it paints is in a layer."""
    assert seen.facts["chosen_at_last"] == "Brush from the hub"
    assert seen.facts["notice"] == "Brush from the hub was fetched and is ready."
    assert seen.facts["fetched"]["buttons"] == ["generate", "cancel"]
    assert seen.facts["painted"].startswith("Done"), seen.facts["painted"]
    assert seen.facts["layers"][-1] == ["red", False]


def test_what_was_done_otherwise_than_asked_is_a_notice(seen: Performance) -> None:
    """As a prompt that was cut, which stays to be read after the picture is done; where nothing was cut, no word."""
    assert seen.facts["notice_of_a_short_prompt"] == ""
    assert "prompt" in seen.facts["notice_of_a_long_prompt"]


def test_krita_ends_well(seen: Performance) -> None:
    """No box is left open, and Krita exits with 0."""
    assert (seen.boxes, seen.status) == ([], 0)
