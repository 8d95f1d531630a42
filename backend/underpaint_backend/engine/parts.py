"""The networks and tokenizers of one model, under the names that diffusers gives them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from torch import nn

from .device import Device, is_out_of_memory
from .exceptions import BadFiles, EngineError
from .filling import streamed
from .packing import Pack, in_files, in_fp8, in_ram, numbers_in, on_disk, pack_layers
from .precision import BYTES, Storage, words_for
from .quantisation import PACKS
from .residency import Key, residency_for
from .sources import Source

log = logging.getLogger(__name__)

T = TypeVar("T")

Precision: TypeAlias = Literal["half", "bfloat16", "float32"]
"""What a network calculates in on a device with half precision; on a CPU all is float32."""


@dataclass(frozen=True)
class Network:
    """How a family loads one of its networks. One that is `optional` may be missing in some models."""

    cls: Any
    precision: Precision = "half"
    optional: bool = False


class Parts:
    """What a family works with: `parts["unet"]` is a network that is ready to be called.

    It is read when it is wanted first, and may be gone when it is wanted again and be read once more. Therefore nobody
    keeps one for longer than a phase of a painting. `marks` says, by name, what was added to a network's weights: what
    is kept of its output is kept apart for each.
    """

    def __init__(self, source: Source, device: Device, specs: Mapping[str, Network]) -> None:
        self.source = source
        self.device = device
        self.residency = residency_for(device)
        self.storage = Storage.PLAIN
        self._chosen = False
        self.marks: dict[str, Hashable] = {}
        self.dress: Callable[[str, nn.Module], None] | None = None
        """Hears of each network as it is handed out, to lay something over it."""
        self._specs = specs
        self._identities: dict[str, Hashable] = {}
        self._numbers: dict[str, int] = {}
        self._quantised: dict[str, int] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._tokenizers: dict[str, Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The networks that this model has."""
        return tuple(name for name in self._specs if self.has(name))

    def load(self, on_part: Callable[[float], None]) -> None:
        """Load all networks, if they all have room at once. `on_part` hears what fraction of their bytes is loaded.

        What has no room is loaded when it is needed. Raises `BadFiles`.
        """
        if not self._chosen:
            self.choose_storage()
        sizes = {name: self.bytes_of(name) for name in self.names}
        done, total = 0, max(1, sum(sizes.values()))
        on_part(0.0)
        if self.residency.alone or total > self.residency.room():
            return
        try:
            for name, size in sizes.items():
                on_part(done / total)
                _ = self[name]
                done += size
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        self.residency.evict()

    def choose_storage(self) -> None:
        """Keep weights as it suits the memory that is there."""
        self._chosen = True
        memory, before = self.residency.memory, self.identities()
        self.storage = Storage.PLAIN
        largest = max((self.bytes_of(name) for name in self.names), default=0)
        self.storage = memory.storage(largest, self.residency.room())
        if self.storage != Storage.PLAIN:
            self.device.keep_freed(False)  # weights pass through memory in full precision
        self.residency.forget(set(before) - set(self.identities()))
        log.info("calculates in %s", self.words)

    @property
    def words(self) -> str:
        """What the largest network is calculated and kept in, for people: "bfloat16, weights in fp8"."""
        largest = max(self.names, key=self._number_of, default=None)
        dtype = self.device.dtype if largest is None else self.device.dtype_for(self._specs[largest].precision)
        return words_for(dtype, self.storage if largest is None else self._storage_of(largest))

    def has(self, name: str) -> bool:
        """Whether the model has this part."""
        return self.source.has(name)

    def __getitem__(self, name: str) -> Any:
        """The network `name`, on the device.

        Raises `BadFiles`.
        """
        network = self.residency.fetch(self.key(name), self.bytes_of(name), lambda: self._network(name))
        if self.dress is not None:
            self.dress(name, network)
        return network

    def key(self, name: str) -> Key:
        """What tells this network from all others."""
        if name not in self._identities:
            self._identities[name] = self._read(lambda: self.source.identity(name))
        spec = self._specs[name]
        return Key(self._identities[name], spec.cls, self.device.dtype_for(spec.precision), self._storage_of(name))

    def forget_changed(self) -> None:
        """Drop those networks from memory whose files are others now than when they were read."""
        self.residency.forget([self.key(name) for name in self._identities if self._has_changed(name)])

    def _has_changed(self, name: str) -> bool:
        try:
            return self.source.identity(name) != self._identities[name]
        except OSError:  # it is gone
            return True

    def identities(self) -> tuple[Key, ...]:
        """What tells the networks of this model from all others."""
        return tuple(self.key(name) for name in self.names)

    def bytes_of(self, name: str) -> int:
        """About what a network takes on the device.

        Raises `BadFiles`.
        """
        number, storage = self._number_of(name), self._storage_of(name)
        if storage == Storage.FILED:
            return self._filed(name)
        return int(number * BYTES.get(storage, self.device.dtype_for(self._specs[name].precision).itemsize))

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of a part, also of the scheduler. Unlike `parts[name].config` it needs no weights.

        Raises `BadFiles`.
        """
        if name not in self._configs:
            self._configs[name] = self._read(lambda: self.source.config(name))
        return self._configs[name]

    def tokenizer(self, name: str, cls: Any) -> Any:
        """The tokenizer or image processor `name`.

        Raises `BadFiles`.
        """
        if name not in self._tokenizers:
            self._tokenizers[name] = self._read(lambda: self.source.tokenizer(name, cls))
        return self._tokenizers[name]

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All that are in memory, for whoever wants to reach into them."""
        return self.residency.peek(self.identities())

    def _number_of(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = self._read(lambda: self._count(name))
        return self._numbers[name]

    def _count(self, name: str) -> int:
        """How many numbers a network has; where nobody says, its files are in half precision as most are."""
        files = self.source.weight_files(name)
        return numbers_in(in_files(files)) if files else self.source.weight_bytes(name) // 2

    def _storage_of(self, name: str) -> Storage:
        if self._filed(name):
            can_wait = self.device.torch_device.type != "cpu"
            return Storage.FETCHED if self.storage == Storage.FETCHED and can_wait else Storage.FILED
        # A VAE is small, and what it loses is seen.
        return Storage.PLAIN if name == "vae" else self.storage

    def _filed(self, name: str) -> int:
        """Bytes of a network whose files are quantised; 0 if its weights are plain."""
        if name not in self._quantised:
            self._quantised[name] = self._read(lambda: self.source.quantised_bytes(name))
        return self._quantised[name]

    def _network(self, name: str) -> nn.Module:
        spec, storage = self._specs[name], self._storage_of(name)
        dtype = self.device.dtype_for(spec.precision)
        if self._filed(name):
            device, waits = self.device.torch_device, storage == Storage.FETCHED
            quantised: nn.Module = self._read(
                lambda: self.source.quantised_network(name, spec.cls, dtype, device, waits=waits)
            )
            return quantised
        if storage == Storage.PLAIN:
            plain: nn.Module = self._read(lambda: self.source.network(name, spec.cls, dtype))
            return plain
        unread = self._read(lambda: self.source.unread(name, spec.cls, dtype))
        pack = self._packing(storage, again=unread is not None)
        if unread is not None:
            network, weights = unread
            streaming: nn.Module = self._read(
                lambda: streamed(name, network, weights, dtype, self.device.torch_device, pack)
            )
            return streaming
        whole: nn.Module = self._read(lambda: self.source.network(name, spec.cls, dtype))
        pack_layers(whole, pack, self.device.torch_device)
        return whole

    def _packing(self, storage: Storage, *, again: bool) -> Pack:
        """How weights are kept that can be read from the disk again, or cannot."""
        device = self.device.torch_device
        if storage in PACKS:
            return PACKS[storage](device)
        if storage == Storage.FP8:
            return in_fp8(device)
        if device.type != "cpu":
            return in_ram(device)
        # What cannot be read again is at least made small.
        return on_disk(device) if again else in_fp8(device)

    def looked_at(self, look: Callable[[], T]) -> T:
        """What `look` finds in configurations. Raises `BadFiles` for whatever odd ones make it raise."""
        found: T = self._read(look)
        return found

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (BadFiles, EngineError):
            raise
        except Exception as error:  # whatever damaged files make the libraries raise
            if is_out_of_memory(error):
                raise
            words = self.source.anonymous(str(error)).splitlines() or [""]
            raise BadFiles(f"{type(error).__name__}: {words[0]}") from error
