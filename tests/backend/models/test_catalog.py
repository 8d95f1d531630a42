"""What could be painted with and what can be: offers, one's own models, and what is on the disk."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.models.catalog import DESCRIPTION, Entry, default_roots, find_models
from underpaint_backend.models.meter import in_gb
from underpaint_backend.models.offers import offer_of, offers

from tests.backend.models.odd import described
from tests.backend.models.things import TABLE, known, model_index, offer
from tests.backend.models.weight_files import write

FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "flux1", "flux2", "classic")


@pytest.fixture(autouse=True)
def _nobody_s_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_every_model_of_the_mission_is_offered() -> None:
    """By the names under which it is chosen."""
    assert set(known()) == {
        *("sd15", "sd15:inpaint", "sd15:ip-adapter", "sdxl", "sdxl:inpaint", "sdxl:ip-adapter"),
        *("flux1:schnell", "flux1:dev", "flux1:krea", "flux1:fill", "flux1:redux", "flux1:kontext"),
        *("flux2-klein:4b", "flux2-klein:base-4b", "flux2-klein:9b", "flux2-klein:base-9b", "flux2:dev"),
    }


@pytest.mark.parametrize("name", known())
def test_an_offer_is_complete(name: str) -> None:
    """A licence, a size, a memory, a scheduler that it has, and files by name or by folder."""
    given = known()[name]
    model = given.model
    assert model.family in FAMILIES
    assert model.licence
    assert model.state == "absent"
    assert model.default_scheduler in model.schedulers
    assert model.download > 1e9
    assert given.memory["bf16"] > given.memory["fp8"] > 1e8
    assert model.memory == given.memory["bf16"] < model.download * 1.05
    assert "model_index.json" in given.sources[0].files
    assert all(source.variant in ("", "fp16") for source in given.sources)
    assert all(source.pinned for source in given.sources)


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "references", "gated"),
    [
        ("flux2-klein:4b", 4, 1.0, 4, False),
        ("flux2-klein:9b", 4, 1.0, 4, True),
        ("flux2-klein:base-4b", 50, 4.0, 4, False),
        ("flux2:dev", 28, 4.0, 6, True),
        ("flux1:schnell", 4, 1.0, 0, True),
        ("flux1:fill", 50, 30.0, 0, True),
        ("flux1:kontext", 30, 2.5, 1, True),
        ("sd15:inpaint", 25, 7.5, 0, False),
    ],
)
def test_defaults_are_those_of_the_variant(
    name: str, steps: int, guidance: float, references: int, gated: bool
) -> None:
    """A distilled model takes four steps and no guidance; others what their makers advise."""
    model = known()[name].model
    assert (model.default_steps, model.default_guidance) == (steps, guidance)
    assert (model.max_references, model.gated) == (references, gated)


def test_every_offer_has_a_page_for_its_licence() -> None:
    """Where it is read, and accepted."""
    assert offers()["flux1:redux"].urls == (
        "https://huggingface.co/black-forest-labs/FLUX.1-dev",
        "https://huggingface.co/black-forest-labs/FLUX.1-Redux-dev",
    )


def test_the_page_for_artists_has_every_model_with_its_numbers() -> None:
    """Sizes, memory and licences on the page are those of the catalog."""
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert list(rows) == list(known())
    for name, given in known().items():
        cells = [cell.strip() for cell in rows[name].strip("|").split("|")]
        numbers = [in_gb(given.model.download), in_gb(given.memory["bf16"]), in_gb(given.memory["fp8"])]
        assert cells[2:] == [*numbers, given.model.licence + (", gated" if given.model.gated else "")]


def test_what_is_absent_is_listed_after_what_is_here() -> None:
    """With the bytes that have to come."""
    models = [entry.model for entry in find_models(default_roots()).values()]
    assert models[0].id == "primer-inpaint"
    assert models[0].state == "ready"
    klein = next(model for model in models if model.id == "flux2-klein:4b")
    assert (klein.state, klein.download) == ("absent", 15_980_000_000)
    assert klein.detail


def test_asking_again_and_again_is_cheap() -> None:
    """Models are looked for once for each job: files are not parsed each time (2 ms here, 20 are allowed)."""
    find_models(default_roots())
    times = []
    for _ in range(20):
        start = time.perf_counter()
        find_models(default_roots())
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02


def test_one_s_own_models_are_noticed_at_once(tmp_path: Path) -> None:
    """models.toml is read again when it changed, and replaces what has the same id."""
    path = tmp_path / "home" / "models.toml"
    path.parent.mkdir()
    path.write_text('[[model]]\nid = "mine"\nfamily = "flux1"\n' + OWN)
    entry = find_models(default_roots())["mine"]
    assert entry.model.schedulers == ("euler", "heun", "dpm++2m", "unipc")
    path.write_text('[[model]]\nid = "sdxl"\nfamily = "classic"\n' + OWN)
    found = find_models(default_roots())
    assert "mine" not in found
    assert found["sdxl"].model.family == "classic"


OWN = """name = "Mine"
tasks = ["text_to_image"]
native_area = 1048576
size_multiple = 16
default_steps = 4
default_guidance = 1.0
default_scheduler = "euler"
repository = "me/mine"
files = ["model_index.json", "*/*"]
"""


@pytest.mark.parametrize(
    "content",
    [
        "[[model]",
        "model = 3",
        "[model]\n",
        '[[model]]\nid = "x"\n',
        '[[model]]\nid = "m"\nfamily = "flux1"\nalso = [1]\n' + OWN,
    ],
)
def test_a_damaged_list_costs_only_one_s_own(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    """The log names the file; the other models stay."""
    path = tmp_path / "home" / "models.toml"
    path.parent.mkdir()
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        found = find_models(default_roots())
    assert {"primer-inpaint", "sdxl"} <= set(found)
    assert "models.toml" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "../../etc"},
        {"repository": "artist/brush/more"},
        {"repository": "brush"},
        {"repository": "a--b/c"},
        {"repository": 7},
        {"revision": "../main"},
        {"revision": ""},
        {"variant": "../fp16"},
        {"files": ["../x/*"]},
        {"files": ["/x/*"]},
        {"files": []},
        {"files": "unet/*"},
        {"parts": {"eye": "../eye"}},
        {"also": [{"repository": "x"}]},
        {"folder": "relative/folder"},
        {"id": "Up:Per"},
        {"id": "a..b"},
        {"parameters": {"denoiser": "much"}},
        {"parameters": 3},
        {"files": ["model_index.json", "unet/*", "text_encoder/*"]},
        {"family": "flux9"},
        {"tasks": ["text_to_image", "edit"]},
        {"max_references": 2},
        {"family": "stable_diffusion_xl", "max_references": 2, "also": [{"repository": "a/b", "files": ["eye/*"]}]},
        {"max_references": 2, "file": "/paint.safetensors"},
    ],
)
def test_an_entry_that_cannot_be_is_refused_with_its_name(change: dict[str, Any]) -> None:
    """No part of an entry leads out of a folder."""
    with pytest.raises(ValueError, match=r"brush:small|Up:Per|a\.\.b"):
        offer_of({**TABLE, **change})


def test_an_unknown_family_is_said_with_those_that_are_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In an entry and in a description: neither is listed as ready."""
    with pytest.raises(ValueError, match=r"no family “flux9”; there are classic, flux1, flux2, stable_diffusion, s"):
        offer_of({**TABLE, "family": "flux9"})
    folder = described(tmp_path / "models" / "mine", "mine")
    (folder / DESCRIPTION).write_text(json.dumps({**TABLE, "id": "mine", "family": "flux9"}))
    assert "mine" not in find_models([tmp_path / "models"])
    assert f"{folder} is left out: there is no family “flux9”" in caplog.text


def test_a_folder_sees_references_with_the_parts_for_that(tmp_path: Path) -> None:
    """What its entry promises without them cannot be used, and it is said how to mend it."""
    folder = described(tmp_path / "models" / "mine", "mine")
    (folder / "unet" / "config.json").write_text("{}")
    write(folder / "unet" / "model.safetensors", {"a": (1,)})
    (folder / DESCRIPTION).write_text(json.dumps({**TABLE, "id": "mine", "max_references": 1}))
    model = find_models([tmp_path / "models"])["mine"].model
    assert model.state == "unfit"
    assert model.detail == (
        "it has no image_encoder and no ip_adapter to see reference pictures with; let its max_references be 0"
    )
    for part in ("image_encoder", "ip_adapter"):
        (folder / part).mkdir()
    assert find_models([tmp_path / "models"])["mine"].model.state == "ready"


def test_folders_with_a_description_are_found_as_before(tmp_path: Path) -> None:
    """They come before what is offered under the same name."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    description = {**TABLE, "id": "sdxl", "name": "My own SDXL"}
    (folder / DESCRIPTION).write_text(json.dumps(description))
    found = find_models([tmp_path / "models"])
    assert (found["sdxl"].model.name, found["sdxl"].folder) == ("My own SDXL", folder)
    (folder / DESCRIPTION).write_text(json.dumps({**description, "name": "Renamed now"}))
    assert find_models([tmp_path / "models"])["sdxl"].model.name == "Renamed now"


def test_no_folder_takes_the_place_of_what_is_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its description says; there is always one model to paint with."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path))
    built_in = find_models(default_roots())["primer-inpaint"]
    folder = tmp_path / "models" / "Cracked"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / DESCRIPTION).write_bytes((built_in.folder / DESCRIPTION).read_bytes())
    assert find_models(default_roots())["primer-inpaint"] == built_in
    assert f"{folder} is left out: “primer-inpaint” comes with Underpaint" in caplog.text


def test_a_described_folder_whose_weights_are_cut_off_cannot_be_used(tmp_path: Path) -> None:
    """A file's header tells that without its numbers being read, and the file is named."""
    folder = tmp_path / "mine"
    weights = write(folder / "unet" / "model.safetensors", {"x": (100,)})
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "model_index.json").write_bytes(model_index("unet"))
    (folder / DESCRIPTION).write_text(json.dumps({**TABLE, "id": "mine"}))
    assert find_models([tmp_path])["mine"].model.state == "ready"
    os.truncate(weights, weights.stat().st_size - 50)
    model = find_models([tmp_path])["mine"].model
    assert model.state == "unfit"
    assert model.detail.startswith("its unet/model.safetensors cannot be used: it is cut off: 50 of its 200 bytes")


def test_an_entry_can_be_a_key() -> None:
    """Whoever holds loaded models by entry may go on doing so."""
    model = offer().model
    assert len({Entry(model, Path("a")), Entry(model, Path("a")), Entry(model, Path("b"))}) == 2
