"""Only schedulers that a model can use are offered: what it was trained with says which."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
from underpaint_backend.engine.schedulers import NAMES, build
from underpaint_backend.models.catalog import find_models
from underpaint_backend.models.folder_list import add_folder
from underpaint_backend.models.folders import file_entry, folder_entries
from underpaint_backend.models.schedulers import WITHOUT_ZERO_SNR, offered
from underpaint_backend.models.suitability import reason_to_refuse
from underpaint_protocol.messages import Model, Request

from tests.backend.models.odd import described, own
from tests.backend.models.things import offer
from tests.backend.models.weight_files import checkpoint_of, write

ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
USABLE = tuple(name for name in NAMES if name not in ("pndm", "heun"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def folder_with(folder: Path, content: str, **description: Any) -> Model:
    """The model in a folder whose scheduler is configured so."""
    described(folder / "mine", "mine")
    path = folder / "mine" / "underpaint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **description}))
    (folder / "mine" / "scheduler").mkdir()
    (folder / "mine" / "scheduler" / "scheduler_config.json").write_text(content)
    return find_models([folder])["mine"].model


def test_a_model_in_a_folder_has_those_that_lead_it_to_its_picture(tmp_path: Path) -> None:
    """What it does not is refused before anything is loaded, alone and in a hybrid."""
    model = folder_with(tmp_path / "models", json.dumps(ZERO_SNR))
    assert model.schedulers == USABLE
    request = Request("mine", "text_to_image", 64, 64, scheduler="pndm")
    refusal = reason_to_refuse(request, model)
    assert refusal is not None
    assert refusal.code == "unknown_scheduler"
    refusal = reason_to_refuse(Request("mine", "text_to_image", 64, 64, scheduler="ddim:3+heun:3"), model)
    assert refusal is not None
    assert refusal.code == "wrong_hybrid"


@pytest.mark.parametrize(
    ("config", "given", "left"),
    [
        (ZERO_SNR, {"default_scheduler": "pndm"}, (USABLE, "ddim")),
        (
            ZERO_SNR,
            {"schedulers": ["heun", "euler", "unipc"], "default_scheduler": "heun"},
            (("euler", "unipc"), "euler"),
        ),
        (ZERO_SNR, {"schedulers": ["heun"], "default_scheduler": "heun"}, (USABLE, "ddim")),
        (ZERO_SNR, {"default_scheduler": "ddim:3+unipc:5"}, (USABLE, "ddim:3+unipc:5")),
        (ZERO_SNR, {"default_scheduler": "ddim:3+heun:5"}, (USABLE, "ddim")),
        (ZERO_SNR, {"family": "classic"}, (("own",), "own")),
        (FLOW, {"default_scheduler": "ddim"}, (("euler", "heun", "dpm++2m", "unipc"), "euler")),
        ({}, {"default_scheduler": "pndm"}, (NAMES, "pndm")),
    ],
)
def test_what_is_chosen_for_nobody_is_usable_too(
    config: dict[str, Any], given: dict[str, Any], left: tuple[tuple[str, ...], str], tmp_path: Path
) -> None:
    """A model's own list is heeded, and its own choice where it can be."""
    model = folder_with(tmp_path / "models", json.dumps(config), **given)
    assert (model.schedulers, model.default_scheduler) == left


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 200_000, '{"prediction_type": [1]}'])
def test_a_damaged_configuration_changes_nothing(content: str, tmp_path: Path) -> None:
    """Whoever loads the model says what is wrong with it."""
    model = folder_with(tmp_path / "models", content)
    assert set(model.schedulers) >= {"ddim", "euler"}


def test_what_is_offered_has_those_of_its_folder(home: Path, tmp_path: Path) -> None:
    """One's own entries, as those of the catalog once they are here."""
    folder = described(tmp_path / "there", "there")
    write(folder / "unet" / "model.safetensors", {"a": (1,)})
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(ZERO_SNR))
    (home / "models.toml").write_text(own("there", f'folder = "{folder}"'))
    model = find_models([])["there"].model
    assert (model.state, model.schedulers) == ("ready", USABLE)


def test_a_single_file_says_what_it_was_trained_with(tmp_path: Path) -> None:
    """Trainers of SDXL note it in the file itself."""
    weights = checkpoint_of("sdxl")
    write(tmp_path / "files" / "plain.safetensors", weights)
    write(tmp_path / "files" / "v.safetensors", {**weights, "v_pred": ()})
    path = write(tmp_path / "files" / "zero.safetensors", {**weights, "v_pred": (0,), "ztsnr": (0,)})
    add_folder(tmp_path / "files")
    found = {entry.model.id: entry.model.schedulers for entry in folder_entries().entries}
    assert found["file/plain"] == NAMES
    assert found["file/v"] == tuple(name for name in NAMES if name != "pndm")
    assert found["file/zero"] == USABLE
    table = {"family": "stable_diffusion_xl", "file": str(path), "default_scheduler": "heun"}
    model = file_entry(offer(**table), lambda *_: None).model
    assert (model.state, model.schedulers, model.default_scheduler) == ("ready", USABLE, "ddim")


def test_who_has_no_levels_of_zero_snr_is_told_by_diffusers() -> None:
    """The rule that needs no diffusers says of each scheduler what its own settings say."""
    unable = set()
    for name in NAMES:
        cls = getattr(diffusers, type(build(name, {})).__name__)
        if "rescale_betas_zero_snr" not in inspect.signature(cls.__init__).parameters:
            unable.add(name)
    assert unable == WITHOUT_ZERO_SNR
    assert offered({**ZERO_SNR, "prediction_type": "epsilon"}) == USABLE
