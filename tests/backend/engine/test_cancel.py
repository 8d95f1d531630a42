"""Cancelling in the middle of whatever is going on."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from parities.flux2 import paired
from parities.tiny_flux1 import tiny_flux1
from torch.nn import functional
from underpaint_backend.engine import pieces
from underpaint_backend.engine.cache import TensorCache
from underpaint_backend.engine.cancel import IN_THIS_THREAD, Cancelled, cancellable, cancellable_loading
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, Source, paint
from underpaint_backend.engine.schedulers import NAMES
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.cancelling import SetAfter
from tests.backend.engine.tiny import add_ip_adapter, build_tiny, build_tiny_xl

POINTS = 4
"""Places at which a configuration is cancelled."""
ATTENTION = functional.scaled_dot_product_attention
"""As torch has it."""
QUIET = Observer(lambda phase: None, lambda step: None)


def painting_with(scheduler: str = "ddim", references: int = 0) -> Painting:
    """A short painting into a random picture, with so many random pictures as references."""
    numbers = np.random.default_rng(0)
    coverage = np.zeros((32, 32), np.float32)
    coverage[8:24, 8:24] = 1
    return Painting(
        size=(32, 32),
        prompt="a red circle",
        negative_prompt="blue",
        guidance=3.0,
        scheduler=scheduler,
        steps=4,
        strength=0.9,
        seeds=(1, 2),
        source=Source(numbers.integers(0, 256, (32, 32, 3), np.uint8), coverage),
        references=[numbers.integers(0, 256, (48, 32, 3), np.uint8) for _ in range(references)],
    )


@pytest.mark.parametrize("scheduler", NAMES)
@pytest.mark.parametrize("channels", [9, 4])
def test_cancelled_anywhere_leaves_no_trace(
    load_tiny: Callable[[int], LoadedModel], channels: int, scheduler: str
) -> None:
    """Cancelled at random points of encoding, denoising and decoding, a model paints the same picture afterwards."""
    model, painting = forgetful(load_tiny(channels)), painting_with(scheduler)
    phases: list[str] = []
    observer = Observer(phases.append, lambda step: None)
    never = SetAfter(float("inf"))
    expected = paint(model, painting, observer, never)

    for point in random.Random(scheduler).sample(range(never.asked), POINTS):
        with pytest.raises(Cancelled):
            paint(model, painting, observer, SetAfter(point))
        np.testing.assert_array_equal(paint(model, painting, observer, Event()), expected)


OTHERS: dict[str, tuple[Callable[[Path], LoadedModel], dict[str, Any]]] = {
    "sdxl": (lambda folder: loaded(build_tiny_xl(folder / "xl", 9)), {}),
    "ip-adapter": (lambda folder: loaded(add_ip_adapter(build_tiny(folder / "adapted", 4))), {"references": 2}),
    "flux1-fill": (lambda folder: tiny_flux1("fill"), {"scheduler": "dpm++2m"}),
    "flux1-kontext": (lambda folder: tiny_flux1("kontext"), {"scheduler": "euler", "references": 1}),
    "flux2-klein-base": (lambda folder: paired("klein base").model, {"scheduler": "unipc", "references": 2}),
}
"""Models of the other families, and what is asked of them."""


@pytest.mark.parametrize("name", OTHERS)
def test_every_family_is_left_without_a_trace(name: str, tmp_path: Path) -> None:
    """Cancelled in the middle of each phase, models of all families paint the same picture afterwards."""
    build, asked_for = OTHERS[name]
    model, painting = forgetful(build(tmp_path)), painting_with(**asked_for)
    never, begins = SetAfter(float("inf")), list[int]()
    expected = paint(model, painting, Observer(lambda phase: begins.append(never.asked), lambda step: None), never)

    numbers = random.Random(name)
    for first, last in pairwise([*begins, never.asked]):
        with pytest.raises(Cancelled):
            paint(model, painting, QUIET, SetAfter(numbers.randrange(first, last)))
        np.testing.assert_array_equal(paint(model, painting, QUIET, Event()), expected)


@pytest.mark.parametrize("channels", [9, 4])
def test_cancelled_between_pieces_leaves_no_trace(
    load_tiny: Callable[[int], LoadedModel], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled between pieces of layers and of attention, a model paints the same picture, piece by piece, too."""
    model, painting = forgetful(load_tiny(channels)), painting_with("ddim")
    whole, never = SetAfter(float("inf")), SetAfter(float("inf"))
    paint(model, painting, QUIET, whole)
    for name, value in {"LARGE": 1, "KERNEL": 1, "PIECE": 2e5}.items():
        monkeypatch.setattr(pieces, name, value)
    expected = paint(model, painting, QUIET, never)
    assert never.asked > 2 * whole.asked

    for point in random.Random(channels).sample(range(never.asked), POINTS):
        with pytest.raises(Cancelled):
            paint(model, painting, QUIET, SetAfter(point))
        np.testing.assert_array_equal(paint(model, painting, QUIET, Event()), expected)


def test_every_phase_can_be_cancelled(tiny_plain: LoadedModel) -> None:
    """There are points in each phase: in the text encoder, the VAE's encoder, the UNet and the VAE's decoder."""
    model, painting = forgetful(tiny_plain), painting_with("ddim")
    asked: dict[str, int] = {}
    never = SetAfter(float("inf"))

    def on_phase(phase: str) -> None:
        asked[phase] = never.asked

    paint(model, painting, Observer(on_phase, lambda step: None), never)

    assert asked["encoding"] < asked["denoising"] < asked["decoding"] < never.asked
    per_pass = (asked["decoding"] - asked["denoising"]) / 4
    assert per_pass > 20


@pytest.mark.parametrize("asked", [40, float("inf")])
def test_nothing_stays(tiny_plain: LoadedModel, asked: float) -> None:
    """After a run, cancelled or not, networks and torch's attention are what they were."""
    with nullcontext() if asked == float("inf") else pytest.raises(Cancelled):
        paint(tiny_plain, painting_with("ddim"), QUIET, SetAfter(asked))

    modules = [module for network in tiny_plain.family.networks for module in network.modules()]
    assert modules
    assert not any(module._forward_pre_hooks for module in modules)
    assert not any("forward" in module.__dict__ for module in modules)
    assert functional.scaled_dot_product_attention is ATTENTION


def test_cancelled_before_it_began() -> None:
    """A context whose event is set already does not begin."""
    event = Event()
    event.set()

    with pytest.raises(Cancelled), cancellable([torch.nn.Identity()], event):
        pytest.fail("it began")


def test_libraries_cannot_swallow_it() -> None:
    """`except Exception` does not catch it."""
    assert not issubclass(Cancelled, Exception)


def test_a_large_tensor_is_not_converted_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What libraries do with a network's largest weights is cancelled in the middle of one."""
    monkeypatch.setattr(pieces, "COPIED", 100)
    weight = torch.ones(1000)
    never = SetAfter(float("inf"))
    with cancellable_loading(never):
        weight.to(torch.float64)
    assert never.asked > 10

    with pytest.raises(Cancelled), cancellable_loading(SetAfter(8)):
        weight.to(torch.float64)


@pytest.mark.parametrize("before", [None, "0"])
def test_libraries_load_in_this_thread(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile transformers is told to read in no threads of its own, and afterwards what it was told before."""
    if before is None:
        monkeypatch.delenv(IN_THIS_THREAD, raising=False)
    else:
        monkeypatch.setenv(IN_THIS_THREAD, before)
    told: list[str] = []

    def load() -> None:
        with cancellable_loading(Event()):
            told.append(os.environ[IN_THIS_THREAD])
            raise RuntimeError("damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        load()

    assert told == ["1"]
    assert os.environ.get(IN_THIS_THREAD) == before


def forgetful(model: LoadedModel) -> LoadedModel:
    """The model without caches, so that every run encodes everything."""
    return replace(model, prompts=TensorCache(0), pictures=TensorCache(0), references=TensorCache(0))


def loaded(entry: Entry) -> LoadedModel:
    """The model of an entry."""
    return Library(open_device("cpu")).load(entry, lambda fraction: None, Event())
