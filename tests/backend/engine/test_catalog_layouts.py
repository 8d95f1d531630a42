"""Each entry of the catalog, on a tiny repository with the real names: found, described, loaded, and nothing more."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.families import family_class
from underpaint_backend.engine.library import Library
from underpaint_backend.models.adding import describe_pipeline
from underpaint_backend.models.catalog import find_models
from underpaint_backend.models.offers import CATALOG, read_offers
from underpaint_backend.models.recognise import PACKS
from underpaint_backend.models.selection import lacking, needed

from tests.backend.engine.repositories import build_repositories

OFFERS = {offer.model.id: offer for offer in read_offers(CATALOG)}
FILL = {"sd15:inpaint", "sdxl:inpaint", "flux1:fill"}
GUIDED = {name for name in OFFERS if name.startswith("sd")} | {"flux2-klein:base-4b", "flux2-klein:base-9b"}
SEE_CANVAS = {name for name in OFFERS if name.startswith("flux2")} | {"flux1:kontext"}
LEAST = {"special_tokens_map.json", "tokenizer_config.json", "generation_config.json", "model_index.json"}
"""Small files that not each version of transformers, nor each family, reads; `model_index.json` marks a model."""


@contextmanager
def opened_below(root: Path) -> Iterator[set[Path]]:
    """All files below `root` that anything in this process, or in others, opens meanwhile. The kernel tells."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    watched = {}
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        watched[libc.inotify_add_watch(descriptor, os.fsencode(folder), 0x20)] = folder  # IN_OPEN
    opened: set[Path] = set()
    try:
        yield opened
        while True:
            try:
                events = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                break
            while events:
                watch, _mask, _cookie, length = struct.unpack_from("iIII", events)
                assert watch != -1, "too many events"
                name = os.fsdecode(events[16 : 16 + length].rstrip(b"\0"))
                opened.add(watched[watch] / name)
                events = events[16 + length :]
    finally:
        os.close(descriptor)
    opened.difference_update([path for path in opened if path.is_dir()])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files are opened")
@pytest.mark.parametrize("name", OFFERS)
def test_an_entry_is_found_loaded_and_needs_what_it_lists(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The family is the catalog's and does what the catalog offers; each file that is listed is read, and no other."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    offer, root = OFFERS[name], tmp_path / "models"
    build_repositories(offer, root)
    wanted = set()
    for source in offer.sources:
        folder = root / source.repository.partition("/")[2]
        paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        assert lacking(source, paths) == []
        wanted |= {folder / path for path in needed(source, paths)}

    entry = find_models([root])[name]
    assert entry.model == replace(offer.model, state="ready", download=0)
    with opened_below(root) as opened, torch.inference_mode():
        family = Library(open_device("cpu")).load(entry, lambda done: None, Event()).family
        family.encode_prompt("a cat")
        if offer.model.max_references:
            family.encode_reference(torch.rand(1, 3, 64, 64) * 2 - 1)

    assert type(family) is family_class(offer.model.family)
    assert family.size_multiple == offer.model.size_multiple
    assert family.takes_mask == (name in FILL)
    assert family.sees_canvas == (name in SEE_CANVAS)
    assert ("edit" in offer.model.tasks) == (name in SEE_CANVAS)
    assert family.is_guided(offer.model.default_guidance) == (name in GUIDED)
    if not offer.model.max_references and (name in FILL or name.startswith("sd")):
        with pytest.raises(NotImplementedError):
            family.encode_reference(torch.zeros(1, 3, 64, 64))

    assert opened - wanted == set()
    assert {path for path in wanted - opened if path.name not in LEAST} == set()


TOLD_BY_NAME = {"flux1:schnell": {"default_steps", "default_guidance"}}
"""What is not in `model_index.json`: [schnell] is of the same pipeline as [dev]."""


@pytest.mark.parametrize("name", [name for name, offer in OFFERS.items() if len(offer.sources) == 1])
def test_a_repository_of_one_s_own_is_described_as_the_catalog_does(name: str, tmp_path: Path) -> None:
    """Whoever adds a copy of a published repository gets the same tasks, steps, guidance and references."""
    offer = OFFERS[name]
    build_repositories(offer, tmp_path)
    folder = tmp_path / offer.sources[0].repository.partition("/")[2]
    told = describe_pipeline(json.loads((folder / "model_index.json").read_text()))
    assert set(told.pop("tasks")) == set(offer.model.tasks)
    assert set(told.pop("files")) >= set(offer.sources[0].files) - {"model_index.json"}
    for key in set(told) - TOLD_BY_NAME.get(name, set()):
        assert told[key] == getattr(offer.model, key), key


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        *[("sd1", "sd15"), ("sd1-inpaint", "sd15:inpaint"), ("sdxl", "sdxl"), ("sdxl-inpaint", "sdxl:inpaint")],
        *[(f"flux1-{kind}", f"flux1:{kind}") for kind in ("schnell", "dev", "fill", "kontext")],
        *[(f"flux2-klein-{size}", f"flux2-klein:{size}") for size in ("4b", "9b", "base-4b", "base-9b")],
        ("flux2-dev", "flux2:dev"),
    ],
)
def test_a_single_file_is_described_as_the_catalog_does(pack: str, name: str) -> None:
    """The defaults of each pack are those of its entry."""
    told = json.loads((PACKS / pack / "defaults.json").read_text())
    model = OFFERS[name].model
    assert set(told.pop("tasks")) == set(model.tasks)
    assert {key: getattr(model, key) for key in told} == told
    assert told.get("max_references", 0) == model.max_references
