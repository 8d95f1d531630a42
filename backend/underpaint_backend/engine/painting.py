"""From a request at the model's working size to pictures: encode, denoise, decode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .cancel import cancellable, check
from .denoise import Step, Surroundings, denoise
from .exceptions import NotFinite
from .families import Conditions, Embedding, Family, Region
from .library import LoadedModel

Phase: TypeAlias = Literal["encoding", "denoising", "decoding"]


@dataclass(frozen=True)
class Source:
    """The part of a canvas to paint into, at working size.

    `pixels` [H, W, 3] are 0..255; `coverage` [H, W] in 0..1 says how far each is selected.
    """

    pixels: NDArray[np.uint8]
    coverage: NDArray[np.float32]


@dataclass(frozen=True)
class Painting:
    """What to paint: all that determines the pictures, in the units of the model.

    `size` is width and height in pixels, multiples of the model's size multiple. `strength` is above 0 and at most 1,
    and says how much of the source is forgotten. There is one picture for each of `seeds`. `references` are pictures
    [H, W, 3] of any size, 0..255.
    """

    size: tuple[int, int]
    prompt: str
    negative_prompt: str
    guidance: float
    scheduler: str
    steps: int
    strength: float
    seeds: Sequence[int]
    source: Source | None = None
    references: Sequence[NDArray[np.uint8]] = ()


@dataclass(frozen=True)
class Observer:
    """Who follows a painting: `on_phase` hears of each phase as it begins, `on_step` of each step's prediction."""

    on_phase: Callable[[Phase], None]
    on_step: Callable[[Step], None]


def paint(model: LoadedModel, painting: Painting, observer: Observer, cancelled: Event) -> NDArray[np.uint8]:
    """The pictures [B, H, W, 3] of a painting, 0..255.

    Raises `Cancelled` soon after the event is set, `UnknownScheduler`, and `NotFinite`.
    """
    with torch.inference_mode(), cancellable(model.family.networks, cancelled):
        latents = paint_latents(model, painting, observer)
        observer.on_phase("decoding")
        # One by one: a batch of large pictures would be the moment of the highest use of memory.
        pictures = torch.cat([model.family.decode(image) for image in latents[:, None]])
        check(cancelled)
        return _to_pixels(pictures, model)


def paint_latents(model: LoadedModel, painting: Painting, observer: Observer) -> Tensor:
    """The clean latents [B, C, h, w] of a painting.

    Raises `UnknownScheduler` and `NotFinite`.
    """
    family, source = model.family, painting.source
    strength = painting.strength if source is not None else 1.0
    schedule = family.schedule(painting.scheduler, painting.steps, strength, painting.size)
    generators = [torch.Generator().manual_seed(seed) for seed in painting.seeds]
    noise = family.noise(generators, painting.size)

    observer.on_phase("encoding")
    predict = family.predictor(_conditions(model, painting), len(painting.seeds))
    surroundings, begin_from = None, None
    if source is not None and (strength < 1 or not family.takes_mask):
        known = _encoded(model, source.pixels)
        if strength < 1:
            begin_from = known.expand_as(noise)
        if not family.takes_mask:
            surroundings = Surroundings(known, noise, _cells(family, source.coverage))

    observer.on_phase("denoising")
    begin = schedule.begin(noise, begin_from)
    latents = denoise(predict, schedule, begin, generators, observer.on_step, surroundings)
    if not bool(latents.isfinite().all()):
        raise NotFinite(model.description.name)
    return latents


def _conditions(model: LoadedModel, painting: Painting) -> Conditions:
    guided = model.family.is_guided(painting.guidance)
    return Conditions(
        prompt=_embedded(model, painting.prompt),
        negative_prompt=_embedded(model, painting.negative_prompt) if guided else None,
        guidance=painting.guidance,
        size=painting.size,
        region=_region(model, painting) if model.family.takes_mask else None,
        references=tuple(_referenced(model, pixels) for pixels in painting.references),
    )


def _region(model: LoadedModel, painting: Painting) -> Region:
    """What a model that fills masks sees of the canvas; without a canvas, one that is all to be filled."""
    family, source = model.family, painting.source
    if source is None:
        width, height = painting.size
        source = Source(np.zeros((height, width, 3), np.uint8), np.ones((height, width), np.float32))
    # Whatever is selected at all is painted: how far it shows is decided when the picture is laid over the canvas.
    selected = source.coverage > 0

    def encode() -> Tensor:
        # 0, mid-grey, is what these models were shown in place of what is missing
        kept = torch.from_numpy(~selected).to(family.device.torch_device)
        return family.encode(_to_picture(source.pixels, family) * kept)

    latents = model.pictures.get((_digest(source.pixels), _digest(selected)), encode)
    coverage = torch.tensor(source.coverage, device=family.device.torch_device)[None, None]
    return Region(latents, _cells(family, selected.astype(np.float32)), coverage)


def _embedded(model: LoadedModel, prompt: str) -> Embedding:
    return model.prompts.get(prompt, lambda: model.family.encode_prompt(prompt))


def _referenced(model: LoadedModel, pixels: NDArray[np.uint8]) -> Embedding:
    family = model.family
    return model.references.get(_digest(pixels), lambda: family.encode_reference(_to_picture(pixels, family)))


def _encoded(model: LoadedModel, pixels: NDArray[np.uint8]) -> Tensor:
    return model.pictures.get(_digest(pixels), lambda: model.family.encode(_to_picture(pixels, model.family)))


def _to_picture(pixels: NDArray[np.uint8], family: Family) -> Tensor:
    """Pixels [H, W, 3], 0..255, as a picture [1, 3, H, W] in -1..1."""
    return torch.tensor(pixels, device=family.device.torch_device).movedim(-1, 0)[None].float() / 127.5 - 1


def _cells(family: Family, coverage: NDArray[np.float32]) -> Tensor:
    """Coverage [H, W] for each latent cell, as [1, 1, h, w].

    A cell is covered as far as the most covered of its pixels: a selected pixel that its cell leaves out would stay.
    """
    pixels = torch.tensor(coverage, device=family.device.torch_device)[None, None]
    return functional.max_pool2d(pixels, family.latent_scale)


def _to_pixels(pictures: Tensor, model: LoadedModel) -> NDArray[np.uint8]:
    """Pictures [B, 3, H, W] in -1..1 as pixels [B, H, W, 3], 0..255."""
    if not bool(pictures.isfinite().all()):
        raise NotFinite(model.description.name)
    pixels = pictures.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    array: NDArray[np.uint8] = pixels.movedim(1, -1).cpu().numpy()
    return np.ascontiguousarray(array)


def _digest(array: NDArray[np.generic]) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
