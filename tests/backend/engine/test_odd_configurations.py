"""Configurations that say what nobody can do: the model is refused in words before anything large is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from parities.tiny_flux1 import build_tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.engine.library import Library
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.pictures import opened, painted
from tests.backend.engine.tiny import build_tiny, build_tiny_xl

MANY = "word " * 100

BUILDERS: dict[str, Callable[[Path], Entry]] = {
    "sd": lambda folder: build_tiny(folder, 4),
    "xl": lambda folder: build_tiny_xl(folder, 4),
    "flux1": lambda folder: build_tiny_flux1(folder, "schnell"),
    "flux2": lambda folder: build_tiny_flux2(folder, "klein")[0],
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Entry]:
    """A tiny model of each kind that nobody changes."""
    entries: dict[str, Entry] = {}

    def entry_of(kind: str) -> Entry:
        if kind not in entries:
            entries[kind] = BUILDERS[kind](tmp_path_factory.mktemp("pristine") / kind)
        return entries[kind]

    return entry_of


@pytest.fixture
def copy(pristine: Callable[[str], Entry], tmp_path: Path) -> Callable[[str], Entry]:
    """A copy of it for one test."""

    def copied(kind: str) -> Entry:
        entry = pristine(kind)
        shutil.copytree(entry.folder, tmp_path / kind)
        return replace(entry, folder=tmp_path / kind)

    return copied


def change(file: Path, **changes: Any) -> None:
    """Change a configuration; what is to be None is taken away."""
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def refused(entry: Entry) -> None:
    """The model is broken, and none of its networks was read."""
    library = Library(open_device("cpu"))
    with pytest.raises(ModelBroken) as caught:
        library.load(entry, lambda done: None, Event())
    assert caught.value.info.code == "model_broken"
    assert str(entry.folder) not in caught.value.info.message
    assert library.residency.reads == 0


SCHEDULERS: list[dict[str, Any]] = [
    {"num_train_timesteps": 0},
    {"num_train_timesteps": 10**9},
    {"num_train_timesteps": "x"},
    {"num_train_timesteps": 1e3},
]
DIFFUSION: list[dict[str, Any]] = [{"prediction_type": "guess"}, {"prediction_type": ["epsilon"]}, {"beta_start": "x"}]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *(("sd", changes) for changes in SCHEDULERS + DIFFUSION),
        ("xl", {"prediction_type": "guess"}),
        *((kind, changes) for kind in ("flux1", "flux2") for changes in SCHEDULERS[:2]),
        ("flux1", {"shift": "x"}),
    ],
    ids=str,
)
def test_noise_levels_that_cannot_be_are_refused(
    copy: Callable[[str], Entry], kind: str, changes: dict[str, Any]
) -> None:
    """Whatever of a scheduler's configuration is odd."""
    entry = copy(kind)
    change(entry.folder / "scheduler" / "scheduler_config.json", **changes)

    refused(entry)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *product(BUILDERS, ({"latent_channels": "x"}, {"block_out_channels": 4}, {"latent_channels": 0})),
        *product(("sd", "xl", "flux1"), ({"scaling_factor": "x"}, {"scaling_factor": 0})),  # it divides
    ],
    ids=str,
)
def test_latents_that_cannot_be_are_refused(copy: Callable[[str], Entry], kind: str, changes: dict[str, Any]) -> None:
    """Whatever of a VAE's configuration is odd."""
    entry = copy(kind)
    change(entry.folder / "vae" / "config.json", **changes)

    refused(entry)


@pytest.mark.parametrize(
    ("kind", "tokenizer"), [("sd", "tokenizer"), ("xl", "tokenizer"), ("xl", "tokenizer_2"), ("flux1", "tokenizer")]
)
@pytest.mark.parametrize("length", [None, 1000])
def test_no_tokenizer_takes_more_than_its_encoder_has_places_for(
    copy: Callable[[str], Entry], kind: str, tokenizer: str, length: int | None
) -> None:
    """Those that name no length say 10³⁰. The picture, and what is left out, are those of the right length."""
    entry = copy(kind)
    file = entry.folder / tokenizer / "tokenizer_config.json"
    encoder = json.loads((entry.folder / tokenizer.replace("tokenizer", "text_encoder") / "config.json").read_text())
    change(file, model_max_length=encoder["max_position_embeddings"])
    right = opened(entry)
    left_out, expected = right.family.left_out(MANY), painted(right)

    change(file, model_max_length=length)

    model = opened(entry)
    assert model.family.left_out(MANY) == left_out
    np.testing.assert_array_equal(painted(model), expected)


@pytest.mark.parametrize(("kind", "tokenizer"), [("sd", "tokenizer"), ("xl", "tokenizer_2"), ("flux1", "tokenizer")])
@pytest.mark.parametrize("length", [0, 2, -1, "x"])
def test_a_tokenizer_with_no_room_for_a_word_is_refused(
    copy: Callable[[str], Entry], kind: str, tokenizer: str, length: object
) -> None:
    """What begins and ends a prompt takes two tokens."""
    entry = copy(kind)
    change(entry.folder / tokenizer / "tokenizer_config.json", model_max_length=length)

    refused(entry)


def test_a_scheduler_that_cannot_be_made_of_the_configuration_is_the_models_fault(copy: Callable[[str], Entry]) -> None:
    """What only one scheduler asks for shows when a job chooses it: it ends, and others go on."""
    entry = copy("sd")
    change(
        entry.folder / "scheduler" / "scheduler_config.json",
        solver_type="guess",
        algorithm_type="guess",
        solver_order="x",
    )
    model = opened(entry)

    assert painted(model).any()
    described = replace(model.description, default_scheduler="unipc")
    with pytest.raises(ModelBroken):
        painted(replace(model, description=described))
