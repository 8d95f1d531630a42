"""Families of models. A new family is one file here: a module with a subclass of `Family` under the name `FAMILY`.

The `family` in a model's description is the name of the module; nothing else needs to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn

from ..denoise import Predict
from ..device import Device
from ..exceptions import BadFiles
from ..parts import Network, Parts
from ..schedulers import Schedule
from ..sources import Source

Embedding: TypeAlias = tuple[Tensor, ...]
"""A prompt as a model understands it: as many tensors as its family needs, each with a batch of 1."""


@dataclass(frozen=True)
class Region:
    """The picture around a selection, for models that were trained to fill masks.

    `latents` [1, C, h, w] are those of the picture with the selection blanked; `mask` [1, 1, h, w] is 1 where to paint
    and 0 elsewhere. `coverage` [1, 1, H, W] in 0..1 is the same for each pixel, and soft.
    """

    latents: Tensor
    mask: Tensor
    coverage: Tensor


@dataclass(frozen=True)
class Conditions:
    """What a model is told besides the noisy latents.

    `size` is width and height in pixels. `guidance` is the scale of classifier-free guidance (Ho & Salimans 2022,
    arXiv:2207.12598), which needs a negative prompt, or what a distilled model takes in its place. `region` is None
    only for models that take no mask. `references` are what `encode_reference` made of each reference picture.
    `negative` says that `prompt` is the negative prompt, in a pass of its own where memory is short.
    """

    prompt: Embedding
    negative_prompt: Embedding | None
    guidance: float
    size: tuple[int, int]
    region: Region | None = None
    references: tuple[Embedding, ...] = ()
    negative: bool = False


class Family(ABC):
    """A loaded model of one architecture: everything that differs between architectures.

    Latents are [B, C, h, w] with h = H / `latent_scale` and w = W / `latent_scale`, normalised as the denoiser sees
    them; pictures are [B, 3, H, W] in -1..1. Both are float32 on `device`, whatever the networks calculate in.
    """

    NETWORKS: ClassVar[Mapping[str, Network]]
    """The networks of the family, by their names in diffusers' layout."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.device = parts.device

    @classmethod
    def load(cls, source: Source, device: Device, on_part: Callable[[float], None]) -> Self:
        """The model whose parts are in `source`. `on_part` hears what fraction is loaded, before each part.

        Raises `BadFiles`.
        """
        family = cls(Parts(source, device, cls.networks_in(source)))
        family.parts.looked_at(family.check)
        family.parts.load(on_part)
        return family

    @classmethod
    def networks_in(cls, source: Source) -> Mapping[str, Network]:
        """The networks of the model in `source`, where their classes differ from model to model.

        Raises `BadFiles`.
        """
        return cls.NETWORKS

    @abstractmethod
    def check(self) -> None:
        """Look at the configurations before anything large is read.

        Raises `BadFiles` if this is not a model of the family.
        """

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Channels of a latent."""

    @property
    @abstractmethod
    def latent_scale(self) -> int:
        """Pixels along each side of a latent cell."""

    @property
    def size_multiple(self) -> int:
        """Both sides of a picture are multiples of so many pixels: of `latent_scale`, or more of them."""
        return self.latent_scale

    @property
    @abstractmethod
    def takes_mask(self) -> bool:
        """Whether the denoiser was trained to fill masks. For others, the loop keeps the surroundings."""

    @property
    def takes_references(self) -> bool:
        """Whether `encode_reference` can be asked. What edits a picture sees it as a reference."""
        return type(self).encode_reference is not Family.encode_reference

    @property
    def sees_canvas(self) -> bool:
        """Whether the model paints better into a selection if the canvas is its first reference."""
        return False

    @property
    def ties_references(self) -> bool:
        """Whether references lie beside the picture, place for place: with them it cannot be painted in windows."""
        return False

    @property
    def was_trained_large(self) -> bool:
        """Whether the model was trained at every size up to 4 megapixels, so that no picture needs windows."""
        return False

    @property
    def guides_in_two_passes(self) -> bool:
        """Whether the denoiser is asked twice for classifier-free guidance anyway, so that nothing is left to split."""
        return False

    @property
    def networks(self) -> Sequence[nn.Module]:
        """All networks that are loaded, for whoever wants to reach into them."""
        return self.parts.networks

    def is_guided(self, guidance: float) -> bool:
        """Whether classifier-free guidance of this scale is used, and thus a negative prompt."""
        return guidance > 1

    @abstractmethod
    def encode_prompt(self, text: str) -> Embedding:
        """The embedding of a prompt."""

    @abstractmethod
    def encode(self, pictures: Tensor) -> Tensor:
        """The most likely latents of pictures."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents."""

    def encode_reference(self, picture: Tensor) -> Embedding:
        """What the denoiser is told of a reference picture [1, 3, H, W]; its sides are any.

        Raises `NotImplementedError` in families that take none.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no references")

    def fitted_reference(self, picture: Tensor, count: int) -> Tensor:
        """A reference picture [1, 3, H, W] at the size that `encode_reference` takes it at, as one of `count`.

        The more there are, the smaller some models want each.
        """
        return picture

    def left_out(self, prompt: str) -> str:
        """The end of a prompt that is too long for the model; empty if nothing is left out."""
        return ""

    @abstractmethod
    def schedule(self, name: str, steps: int, strength: float, size: tuple[int, int]) -> Schedule:
        """The schedule of the scheduler called `name` for a picture of `size` (width, height) in pixels.

        Raises `UnknownScheduler`.
        """

    @abstractmethod
    def predictor(self, conditions: Conditions, batch: int) -> Predict:
        """The denoiser under these conditions, for a batch of this size."""

    def noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Tensor:
        """Unit noise for pictures of `size` (width, height) in pixels, one for each generator.

        It is drawn on the CPU, image by image, so that a seed gives the same picture in every batch and on every
        device.
        """
        width, height = size
        shape = (1, self.latent_channels, height // self.latent_scale, width // self.latent_scale)
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
        return torch.cat(drawn).to(self.device.torch_device)


def names() -> tuple[str, ...]:
    """The families there are."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def family_class(name: str) -> type[Family]:
    """The class of the family called `name`.

    Raises `BadFiles` if there is none.
    """
    if name not in names():
        raise BadFiles(f"there is no family of models called {name!r}")
    found: type[Family] = importlib.import_module(f"{__name__}.{name}").FAMILY
    return found
