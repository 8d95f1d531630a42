"""Families of models. A new family is one file here: a module with a subclass of `Family` under the name `FAMILY`.

The `family` in a model's description is the name of the module; nothing else needs to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..denoise import Predict
from ..device import Device
from ..exceptions import BadFiles
from ..schedulers import Schedule

Embedding: TypeAlias = tuple[Tensor, ...]
"""A prompt as a model understands it: as many tensors as its family needs, each with a batch of 1."""


@dataclass(frozen=True)
class Region:
    """The picture around a selection, for models that were trained to fill masks.

    `latents` [1, C, h, w] are those of the picture with the selection blanked; `mask` [1, 1, h, w] is 1 where to paint
    and 0 elsewhere.
    """

    latents: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Conditions:
    """What a model is told besides the noisy latents.

    Without a negative prompt there is no guidance. `guidance` is the scale of classifier-free guidance (Ho & Salimans
    2022, arXiv:2207.12598). `region` is None only for models that take no mask.
    """

    prompt: Embedding
    negative_prompt: Embedding | None
    guidance: float
    region: Region | None


class Family(ABC):
    """A loaded model of one architecture: everything that differs between architectures.

    Latents are [B, C, h, w] with h = H / `latent_scale` and w = W / `latent_scale`, normalised as the denoiser sees
    them; pictures are [B, 3, H, W] in -1..1. Both are float32 on `device`, whatever the networks calculate in.
    """

    device: Device

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: Device, on_part: Callable[[float], None]) -> Family:
        """The model in `folder`, a folder in diffusers' layout.

        `on_part` hears what fraction is loaded, before each part.

        Raises `BadFiles`.
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
    @abstractmethod
    def takes_mask(self) -> bool:
        """Whether the denoiser was trained to fill masks. For others, the loop keeps the surroundings."""

    @property
    @abstractmethod
    def networks(self) -> Sequence[nn.Module]:
        """All networks, for whoever wants to reach into them."""

    @abstractmethod
    def encode_prompt(self, text: str) -> Embedding:
        """The embedding of a prompt."""

    @abstractmethod
    def encode(self, pictures: Tensor) -> Tensor:
        """The most likely latents of pictures."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents."""

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
