"""From a request at the model's working size to pictures: encode, denoise, decode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .cancel import check, watching
from .denoise import Step, Surroundings, denoise
from .evaluation import Evaluation
from .exceptions import BadFiles, ModelBroken, NoReferences, NotFinite
from .families import Conditions, Embedding, Family, Region
from .ladder import Effort
from .library import LoadedModel
from .schedulers import Schedule
from .windows import Window, blended, windows

Phase: TypeAlias = Literal["encoding", "denoising", "decoding"]

WHOLE_AREA = 1536 * 1536
"""Pixels of a picture that the VAE encodes and decodes as a whole; of larger ones, tiles."""
TILE = 1024
"""Sides of these tiles in px."""


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
    """Who follows a painting.

    `on_phase` hears of each phase as it begins, `on_step` of each step's prediction, and `on_notice`, at the end, of
    what was done otherwise than with more memory: at most 5 sentences for the artist.
    """

    on_phase: Callable[[Phase], None]
    on_step: Callable[[Step], None]
    on_notice: Callable[[str], None] = lambda notice: None


def paint(model: LoadedModel, painting: Painting, observer: Observer, cancelled: Event) -> NDArray[np.uint8]:
    """The pictures [B, H, W, 3] of a painting, 0..255.

    Raises `Cancelled` soon after the event is set, `UnknownScheduler`, `NoReferences`, `NotFinite`, `OutOfMemory`, and
    `ModelBroken` if parts that are read only now turn out to be damaged.
    """
    try:
        with torch.inference_mode(), watching(model.family.parts.residency, cancelled):
            pictures = _painted(model, painting, observer)
            check(cancelled)
            pixels = _to_pixels(pictures, model)
    except BadFiles as error:
        raise ModelBroken(model.description.name, str(error)) from error
    for notice in model.ladder.notices:
        observer.on_notice(notice)
    return pixels


def _painted(model: LoadedModel, painting: Painting, observer: Observer) -> Tensor:
    """The pictures [B, 3, H, W] of a painting."""
    whole = getattr(model.family, "paint", None)
    if whole is not None:  # a family with a loop of its own
        model.ladder.begin()
        pictures: Tensor = model.ladder.attempt(Effort("painting"), lambda: whole(painting, observer))
        return pictures
    latents = paint_latents(model, painting, observer)
    observer.on_phase("decoding")
    # One by one: a batch of large pictures would be the moment of the highest use of memory.
    return torch.cat([_decoded(model, image, painting.size).cpu() for image in latents[:, None]])


def paint_latents(model: LoadedModel, painting: Painting, observer: Observer) -> Tensor:
    """The clean latents [B, C, h, w] of a painting.

    Raises `UnknownScheduler`, `NoReferences`, `NotFinite` and `OutOfMemory`.
    """
    family, source = model.family, painting.source
    if painting.references and not family.takes_references:
        raise NoReferences(model.description.name)
    model.ladder.begin()
    strength = painting.strength if source is not None else 1.0
    evaluation = Evaluation(model, painting)

    def prepare() -> tuple[Schedule, list[torch.Generator], Tensor]:
        size = evaluation.seen_size
        schedule = family.parts.looked_at(lambda: family.schedule(painting.scheduler, painting.steps, strength, size))
        generators = [torch.Generator().manual_seed(seed) for seed in painting.seeds]
        return schedule, generators, family.noise(generators, painting.size)

    schedule, generators, noise = model.ladder.attempt(Effort("preparing"), prepare)

    observer.on_phase("encoding")
    evaluation.conditions = _conditions(model, painting)
    surroundings, begin_from = None, None
    if source is not None and (strength < 1 or not model.takes_mask):
        known = _encoded(model, source.pixels)
        if strength < 1:
            begin_from = known.expand_as(noise)
        if not model.takes_mask:
            surroundings = Surroundings(known, noise, _cells(model, source.coverage))

    observer.on_phase("denoising")
    begin = schedule.begin(noise, begin_from)
    latents = denoise(evaluation, schedule, begin, generators, observer.on_step, surroundings)
    if not bool(latents.isfinite().all()):
        raise NotFinite(model.description.name)
    return latents


def _decoded(model: LoadedModel, latents: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture [1, 3, H, W] of latents; a large one in tiles."""
    family, ladder = model.family, model.ladder
    cells = (latents.shape[-2], latents.shape[-1])

    def decode() -> Tensor:
        tiles = _tiles(model, cells)
        return blended(tiles, cells, lambda tile: family.decode(tile.of(latents)), model.latent_scale)

    return ladder.attempt(Effort("decoding", side=max(size)), decode)


def _latents_of(model: LoadedModel, picture: Tensor) -> Tensor:
    """The latents [1, C, h, w] of a picture [1, 3, H, W]; of a large one, from tiles."""
    family, scale = model.family, model.latent_scale
    cells = (picture.shape[-2] // scale, picture.shape[-1] // scale)

    def encode() -> Tensor:
        return blended(_tiles(model, cells), cells, lambda tile: family.encode(tile.of(picture, scale)))

    return model.ladder.attempt(Effort("encoding a picture", side=max(picture.shape[-2:])), encode)


def _tiles(model: LoadedModel, cells: tuple[int, int]) -> list[Window]:
    """In what the VAE encodes and decodes a picture of so many cells."""
    side = model.ladder.tile
    if side is None and cells[0] * cells[1] * model.latent_scale**2 <= WHOLE_AREA:
        return windows(cells, cells)
    length = max(1, (side or TILE) // model.latent_scale)
    return windows(cells, (length, length))


def _conditions(model: LoadedModel, painting: Painting) -> Conditions:
    guided = model.family.is_guided(painting.guidance)
    return Conditions(
        prompt=_embedded(model, painting.prompt),
        negative_prompt=_embedded(model, painting.negative_prompt) if guided else None,
        guidance=painting.guidance,
        size=painting.size,
        region=_region(model, painting) if model.takes_mask else None,
        references=_referenced(model, painting.references),
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
        return _latents_of(model, _to_picture(source.pixels, family) * kept)

    key = (_identity(model, "vae"), _digest(source.pixels), _digest(selected))
    latents = model.pictures.get(key, encode, family.device.torch_device)
    coverage = torch.tensor(source.coverage, device=family.device.torch_device)[None, None]
    return Region(latents, _cells(model, selected.astype(np.float32)), coverage)


def _embedded(model: LoadedModel, prompt: str) -> Embedding:
    family = model.family
    # What T5 takes of a prompt depends on the variant, which may share T5 itself with another.
    key = (_identity(model, "text_encoder"), getattr(family, "most_tokens", None), prompt)

    def encode() -> Embedding:
        return model.ladder.attempt(Effort("encoding a prompt"), lambda: family.encode_prompt(prompt))

    return model.prompts.get(key, encode, family.device.torch_device)


def _referenced(model: LoadedModel, references: Sequence[NDArray[np.uint8]]) -> tuple[Embedding, ...]:
    return tuple(_reference(model, pixels, len(references)) for pixels in references)


def _reference(model: LoadedModel, pixels: NDArray[np.uint8], count: int) -> Embedding:
    family = model.family

    def encode() -> Embedding:
        picture = family.fitted_reference(_to_picture(pixels, family), count)
        return model.ladder.attempt(Effort("encoding a reference"), lambda: family.encode_reference(picture))

    key = (_identity(model, ""), _digest(pixels), count)
    return model.references.get(key, encode, family.device.torch_device)


def _encoded(model: LoadedModel, pixels: NDArray[np.uint8]) -> Tensor:
    family = model.family
    key = (_identity(model, "vae"), _digest(pixels))
    return model.pictures.get(key, lambda: _latents_of(model, _to_picture(pixels, family)), family.device.torch_device)


def _identity(model: LoadedModel, begin: str) -> Hashable:
    """What tells the output of the networks whose names begin so from that of all others."""
    parts = model.family.parts
    names = [name for name in parts.names if name.startswith(begin)]
    shared = tuple((name, parts.key(name), parts.marks.get(name)) for name in names)
    # Without networks of its own, or from a single file, it is the model's.
    return type(model.family), shared or model.description.id


def _to_picture(pixels: NDArray[np.uint8], family: Family) -> Tensor:
    """Pixels [H, W, 3], 0..255, as a picture [1, 3, H, W] in -1..1."""
    return torch.tensor(pixels, device=family.device.torch_device).movedim(-1, 0)[None].float() / 127.5 - 1


def _cells(model: LoadedModel, coverage: NDArray[np.float32]) -> Tensor:
    """Coverage [H, W] for each latent cell, as [1, 1, h, w].

    A cell is covered as far as the most covered of its pixels: a selected pixel that its cell leaves out would stay.
    """
    pixels = torch.tensor(coverage, device=model.family.device.torch_device)[None, None]
    return functional.max_pool2d(pixels, model.latent_scale)


def _to_pixels(pictures: Tensor, model: LoadedModel) -> NDArray[np.uint8]:
    """Pictures [B, 3, H, W] in -1..1 as pixels [B, H, W, 3], 0..255."""
    if not bool(pictures.isfinite().all()):
        raise NotFinite(model.description.name)
    pixels = pictures.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    array: NDArray[np.uint8] = pixels.movedim(1, -1).cpu().numpy()
    return np.ascontiguousarray(array)


def _digest(array: NDArray[np.generic]) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
