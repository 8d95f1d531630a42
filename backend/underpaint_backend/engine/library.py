"""The models that are loaded. Loading takes seconds, so they stay until others need their place."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

import torch
from torch import Tensor
from underpaint_protocol.messages import Model

from ..models.catalog import Entry
from .cache import TensorCache
from .cancel import cancellable, cancellable_loading
from .device import Device
from .exceptions import BadFiles, ModelBroken
from .families import Embedding, Family, family_class
from .preview import LatentToRGB
from .sources import FolderSource

log = logging.getLogger(__name__)

PROMPT_BYTES = 32 << 20
"""Prompt embeddings that a model keeps: over 200 of Stable Diffusion, in float32."""

PICTURE_BYTES = 32 << 20
"""Latents of pictures that a model keeps, so that another try at the same place encodes nothing."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to paint: its description, its networks, its preview projection and its caches."""

    description: Model
    family: Family
    projection: LatentToRGB
    prompts: TensorCache[Embedding] = field(default_factory=lambda: TensorCache(PROMPT_BYTES))
    pictures: TensorCache[Tensor] = field(default_factory=lambda: TensorCache(PICTURE_BYTES))
    references: TensorCache[Embedding] = field(default_factory=lambda: TensorCache(PICTURE_BYTES))


class Library:
    """Loaded models on one device: at most `capacity`, and fewer where memory is short."""

    def __init__(self, device: Device, capacity: int = 2) -> None:
        self.device = device
        self.capacity = capacity
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()

    def __contains__(self, model: str) -> bool:
        return model in self._models

    def load(self, entry: Entry, on_part: Callable[[float], None], cancelled: Event) -> LoadedModel:
        """The model of `entry`, loaded unless it is already. `on_part` hears what fraction is loaded, now and then.

        Raises `Cancelled` soon after the event is set, and `ModelBroken`.
        """
        model = self._models.get(entry.model.id)
        if model is None:
            self._make_room(_bytes_of(entry))
            model = self._models[entry.model.id] = self._read(entry, on_part, cancelled)
        self._models.move_to_end(entry.model.id)
        return model

    def clear(self) -> None:
        """Forget all models and give their memory back."""
        self._models.clear()
        self.device.release()

    def _read(self, entry: Entry, on_part: Callable[[float], None], cancelled: Event) -> LoadedModel:
        try:
            with cancellable_loading(cancelled):
                family = family_class(entry.model.family).load(FolderSource(entry.folder), self.device, on_part)
        except BadFiles as error:
            raise ModelBroken(entry.model.name, str(error)) from error
        if entry.model.size_multiple % family.latent_scale:
            raise ModelBroken(entry.model.name, f"its size multiple must be one of {family.latent_scale}")
        on_part(0.8)
        with torch.inference_mode(), cancellable(family.networks, cancelled):
            projection = LatentToRGB.of(family.encode, self.device.torch_device)
        log.info("%s is loaded; its previews explain %.0f %% of the colours", entry.model.id, 100 * projection.fit)
        return LoadedModel(entry.model, family, projection)

    def _make_room(self, needed: int) -> None:
        """Drop the models used least recently until one of `needed` bytes has its place."""
        while self._models and (len(self._models) >= self.capacity or self.device.memory()[0] < needed):
            self._models.popitem(last=False)
            self.device.release()


def _bytes_of(entry: Entry) -> int:
    """About how much memory a model needs.

    Twice its files: weights in half precision double on a CPU, and elsewhere there must be room to work in.
    """
    return 2 * sum(path.stat().st_size for path in entry.folder.glob("*/*.safetensors"))
