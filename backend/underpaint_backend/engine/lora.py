"""LoRAs (Hu et al. 2021, arXiv:2106.09685): small changes of a model's layers, laid over them for one job.

A layer W that is changed says W x + weight · scale · B A x. A and B are never merged into W: the model is the same to
the bit once they are gone, packed weights stay packed, and a network that several models share is changed for one job
alone.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakSet

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from .exceptions import ModelBroken, WrongLora
from .lora_files import Change, Lora, read_lora
from .parts import Parts

log = logging.getLogger(__name__)

LORA_BYTES = 1 << 30
"""What LoRAs take on the device that are kept for the next job. One for SDXL has 50-400 MB."""
LORAS = 16
"""How many are kept; a job may have as many."""

Choice: TypeAlias = tuple[Path, float]
"""The file of a LoRA and how far it is followed: 0 is not at all."""
Attempt: TypeAlias = Callable[[Callable[[], Lora]], Lora]
"""Reads a LoRA, and does what can be done where memory is too short for it."""


def _once(read: Callable[[], Lora]) -> Lora:
    return read()


class LoraRack:
    """LoRAs in memory, the ones used least recently out. Those of the job at hand stay, however large they are."""

    def __init__(self, most_bytes: int = LORA_BYTES, most: int = LORAS) -> None:
        self.most_bytes = most_bytes
        self.most = most
        self._held: OrderedDict[Hashable, Lora] = OrderedDict()
        self._worn: set[Hashable] = set()

    @property
    def bytes(self) -> int:
        """What they take."""
        return sum(lora.bytes for lora in self._held.values())

    def let_go(self) -> bool:
        """Forget all that no job wears now. Whether there were any."""
        idle = [key for key in self._held if key not in self._worn]
        for key in idle:
            log.info("the LoRA %s makes room", self._held.pop(key).name)
        return bool(idle)

    @contextmanager
    def worn(
        self, model: str, family: str, parts: Parts, choices: Sequence[Choice], attempt: Attempt = _once
    ) -> Iterator[Worn]:
        """Within this context the model called `model`, of `family`, wears the LoRAs, once its networks are dressed.

        `parts.marks` say so for as long. A weight of 0 is the same as not to choose the LoRA. Each is read within
        `attempt`, which may read it again.

        Raises `WrongLora` if one was made for another family, and `ModelBroken` if its file is damaged.
        """
        loras: list[tuple[Lora, float]] = []
        worn, before = Worn(model, loras), dict(parts.marks)
        try:
            for path, weight in choices:
                if weight:
                    lora = attempt(partial(self._fetch, path, model, family, parts))
                    self._worn.add(lora.identity)  # at once, for else it would make room for the next
                    loras.append((lora, weight))
            self._make_room()
            parts.marks.update(worn.marks)
            yield worn
        finally:
            self._worn.clear()
            worn.take_off()
            parts.marks.clear()
            parts.marks.update(before)

    def _fetch(self, path: Path, model: str, family: str, parts: Parts) -> Lora:
        dtypes = {name: parts.key(name).dtype for name in parts.names}
        try:
            status = path.stat()
            key = (str(path.resolve()), status.st_size, status.st_mtime_ns, family, tuple(dtypes.items()))
            if key not in self._held:
                self._held[key] = read_lora(path, key, model, family, parts, dtypes)
        except OSError as error:
            raise ModelBroken(path.stem, f"it cannot be read: {error.strerror}") from error
        self._held.move_to_end(key)
        return self._held[key]

    def _make_room(self) -> None:
        for key in list(self._held):
            if len(self._held) <= self.most and self.bytes <= self.most_bytes:
                return
            if key not in self._worn:
                log.info("the LoRA %s makes room", self._held.pop(key).name)


class Worn:
    """The LoRAs of one job. Networks may be read anew in the middle of it, so each is dressed when it is fetched."""

    def __init__(self, model: str, loras: Sequence[tuple[Lora, float]]) -> None:
        self.model = model
        self.loras = loras
        self._dressed: WeakSet[nn.Module] = WeakSet()
        self._hooks: list[RemovableHandle] = []

    @property
    def marks(self) -> dict[str, Hashable]:
        """What each part wears: two jobs with the same marks get the same of it."""
        names = {name for lora, _ in self.loras for name in lora.changes}
        return {
            name: tuple((lora.identity, weight) for lora, weight in self.loras if name in lora.changes)
            for name in names
        }

    def dress(self, name: str, network: nn.Module) -> None:
        """Lay over the network of this name what changes it; nothing happens if that was done already.

        Raises `WrongLora` if its layers are others than the LoRA was made for.
        """
        if network in self._dressed:
            return
        fitted = [
            (module, change, weight)
            for lora, weight in self.loras
            for module, change in _fitted(network, lora.changes.get(name, {}), lora, self.model)
        ]
        self._dressed.add(network)
        for module, change, weight in fitted:
            self._hooks.append(module.register_forward_hook(_addition(change, weight), with_kwargs=True))

    def take_off(self) -> None:
        """Leave all networks as they were."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._dressed.clear()


def _fitted(
    network: nn.Module, changes: Mapping[str, Change], lora: Lora, model: str
) -> Iterator[tuple[nn.Module, Change]]:
    """The layers of a network that a LoRA changes.

    Raises `WrongLora` if one of them is not there, or of another shape.
    """
    has_prefix = hasattr(network, "text_model")
    for name, change in changes.items():
        if not has_prefix:  # as text encoders had in earlier releases of transformers
            name = name.removeprefix("text_model.")
        try:
            module = network.get_submodule(name)
        except AttributeError:
            if "guidance_embedder" in name:  # FLUX.1 [schnell] has none and takes LoRAs of [dev] without it
                continue
            raise WrongLora(lora.name, f"another kind of {lora.made_for}", model) from None
        if name == "x_embedder":
            change = _padded(module, change)
        fitting = _fitting(module, change)
        if fitting is None:
            raise WrongLora(lora.name, f"another size of {lora.made_for}", model)
        yield module, fitting


def _fitting(module: nn.Module, change: Change) -> Change | None:
    """The change in the shape that a layer needs; None if it does not fit."""
    down, up = change.down, change.up
    if isinstance(module, nn.Linear):
        down, up = down.flatten(1), up.flatten(1)
        fits = down.shape[1] == module.in_features and up.shape[0] == module.out_features
    elif isinstance(module, nn.Conv2d):
        down = down if down.dim() == 4 else down[:, :, None, None]
        up = up if up.dim() == 4 else up[:, :, None, None]
        fits = (down.shape[1], up.shape[0]) == (module.in_channels, module.out_channels) and module.groups == 1
        fits = fits and tuple(down.shape[2:]) == module.kernel_size and tuple(up.shape[2:]) == (1, 1)
    else:
        return None
    return Change(down, up, change.scale) if fits and down.shape[0] == up.shape[1] else None


def _padded(module: nn.Module, change: Change) -> Change:
    """FLUX.1 [Fill]'s tokens begin with what those of the other variants are, so that their LoRAs suit it."""
    lacking = getattr(module, "in_features", 0) - change.down.shape[1]
    return Change(functional.pad(change.down, (0, lacking)), change.up, change.scale) if lacking > 0 else change


def _addition(change: Change, weight: float) -> Callable[..., Tensor]:
    """What a layer calls after its pass."""
    scale = weight * change.scale

    def add(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        seen: Tensor = inputs[0] if inputs else named["input"]
        seen = seen.to(change.down.dtype)
        if isinstance(module, nn.Conv2d):
            less = functional.conv2d(seen, change.down, None, module.stride, module.padding, module.dilation)
            return (output + functional.conv2d(less, change.up) * scale).to(output.dtype)
        return (output + functional.linear(functional.linear(seen, change.down), change.up) * scale).to(output.dtype)

    return add
