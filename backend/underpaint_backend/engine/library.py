"""The models that are loaded. Loading takes seconds, so they stay until others need their place."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Event

import torch
from torch import Tensor
from underpaint_protocol.messages import Model

from ..models.catalog import Entry
from .cache import TensorCache
from .cancel import cancellable_loading, watching
from .device import Device
from .exceptions import BadFiles, ModelBroken
from .families import Embedding, Family, family_class
from .ladder import Effort, Ladder
from .precision import Memory
from .preview import SIDE, LatentToRGB
from .quantisation import refuse_unusable
from .residency import Residency
from .single_file import SingleFileSource
from .sources import FolderSource, Source

log = logging.getLogger(__name__)

PROMPT_BYTES = 256 << 20
"""Prompt embeddings that are kept, in RAM: 2000 of Stable Diffusion, 30 of FLUX.1."""
PICTURE_BYTES = 256 << 20
"""Latents of pictures that are kept, in RAM, so that another try at the same place encodes nothing."""
MODELS = 32
"""Models that are remembered beyond their networks: tokenizers, configurations, and where they are on the ladder."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to paint: its description, its networks, its preview projection, its ladder, the caches.

    `latent_scale` and `takes_mask` are its family's, which may need a network to say so. The caches are those of all
    models of a library.
    """

    description: Model
    family: Family
    projection: LatentToRGB
    ladder: Ladder
    latent_scale: int
    takes_mask: bool
    prompts: TensorCache[Embedding] = field(default_factory=lambda: TensorCache(PROMPT_BYTES))
    pictures: TensorCache[Tensor] = field(default_factory=lambda: TensorCache(PICTURE_BYTES))
    references: TensorCache[Embedding] = field(default_factory=lambda: TensorCache(PICTURE_BYTES))


@dataclass(frozen=True)
class _Known:
    """A model, and what it was read from: the state of its files is that before they were."""

    entry: Entry
    state: Hashable
    model: LoadedModel


class Library:
    """Loaded models on one device, as many as there is memory for."""

    def __init__(self, device: Device, memory: Memory | None = None) -> None:
        memory = memory or Memory()
        self.device = memory.device(device)
        self.residency = Residency(self.device, memory)
        self._models: OrderedDict[str, _Known] = OrderedDict()
        self._prompts: TensorCache[Embedding] = TensorCache(PROMPT_BYTES)
        self._pictures: TensorCache[Tensor] = TensorCache(PICTURE_BYTES)
        self._references: TensorCache[Embedding] = TensorCache(PICTURE_BYTES)

    def __contains__(self, model: str) -> bool:
        """Whether all networks of a model are in memory."""
        if model not in self._models:
            return False
        return all(key in self.residency for key in self._models[model].model.family.parts.identities())

    def load(self, entry: Entry, on_part: Callable[[float], None], cancelled: Event) -> LoadedModel:
        """The model of `entry`, loaded unless it is already, from the same files as they are now.

        `on_part` hears what fraction is loaded, now and then. Where not all of its networks have room at once, they are
        loaded when they are needed.

        Raises `Cancelled` soon after the event is set, `ModelBroken`, `CannotQuantise` and `OutOfMemory`.
        """
        source = _source_of(entry)
        state, known = source.state(), self._models.get(entry.model.id)
        try:
            with cancellable_loading(cancelled):
                if known is not None and (known.entry, known.state) == (entry, state):
                    model = known.model
                    self.residency.alone = model.ladder.alone  # and not what the job before needed
                    model.family.parts.load(on_part)
                else:
                    self.residency.alone = False
                    self._forget(entry.model.id)
                    model = self._read(entry, source, on_part, cancelled)
        except BadFiles as error:
            raise ModelBroken(entry.model.name, str(error)) from error
        self._models[entry.model.id] = _Known(entry, state, model)
        self._models.move_to_end(entry.model.id)
        if len(self._models) > MODELS:
            self._models.popitem(last=False)
        return model

    def clear(self) -> None:
        """Forget all models and give their memory back."""
        self._models.clear()
        self.residency.clear()

    def _forget(self, model: str) -> None:
        """Forget a model whose files or description are others now; what is the same of its networks stays."""
        known = self._models.pop(model, None)
        if known is not None:
            log.info("%s has changed and is read again", model)
            known.model.family.parts.forget_changed()

    def _read(self, entry: Entry, source: Source, on_part: Callable[[float], None], cancelled: Event) -> LoadedModel:
        refuse_unusable(self.residency.memory.precision, self.device)
        with self.residency.shared():
            family = family_class(entry.model.family).load(source, self.device, on_part)
        ladder = Ladder(family.parts)
        scale, multiple, takes_mask = ladder.attempt(
            Effort("loading"),
            lambda: family.parts.looked_at(lambda: (family.latent_scale, family.size_multiple, family.takes_mask)),
        )
        if entry.model.size_multiple % multiple:
            raise ModelBroken(entry.model.name, f"its size multiple must be one of {multiple}")
        on_part(0.8)
        with torch.inference_mode(), watching(self.residency, cancelled):
            projection = ladder.attempt(
                Effort("loading", side=SIDE), lambda: LatentToRGB.of(family.encode, self.device.torch_device)
            )
        log.info("%s is loaded; its previews explain %.0f %% of the colours", entry.model.id, 100 * projection.fit)
        return LoadedModel(
            entry.model, family, projection, ladder, scale, takes_mask, self._prompts, self._pictures, self._references
        )


def _source_of(entry: Entry) -> Source:
    if entry.checkpoint is None:
        return FolderSource(entry.folder, entry.elsewhere)
    return SingleFileSource(entry.checkpoint, entry.folder, entry.pack)
