"""The networks that are in memory: on the device, or waiting in RAM. The ones used least recently make room.

A network is known by its weights, not by the model that it came with, so that models share what they have in common.
"""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from .device import Device, machine_memory
from .packing import bytes_of
from .precision import Memory, Storage

log = logging.getLogger(__name__)

RESERVE = 1 << 30
"""Bytes that networks leave free for what models calculate, where there is no bound; at most a tenth of all memory."""

Watch: TypeAlias = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Key:
    """What tells a network from all others: its weights, its class, and how these weights are kept."""

    weights: Hashable
    cls: Any
    dtype: torch.dtype
    storage: Storage


@dataclass
class _Held:
    network: nn.Module
    bytes: int
    on_device: bool = True


class Residency:
    """Networks in memory, bounded in bytes on the device and in RAM. On a CPU both are one.

    From the device a network goes to RAM, from RAM it goes altogether. One that is in use stays. `reads` counts how
    often one came from the disk.
    """

    def __init__(self, device: Device, memory: Memory | None = None) -> None:
        self.device = device
        self.memory = memory or Memory()
        self.reads = 0
        self.alone = False
        """Whether nothing stays that is not in use."""
        self.let_go: Callable[[], bool] = lambda: False
        """Drops what else lies idle on the device, such as LoRAs; whether there was anything."""
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._in_use: set[Key] | None = None
        self._watch: Watch | None = None
        self._reading: Callable[[], AbstractContextManager[None]] = nullcontext

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def fetch(self, key: Key, size: int, read: Callable[[], nn.Module]) -> nn.Module:
        """The network, on the device; `read`, if it is nowhere, reads it, and `size` is about its bytes then."""
        held = self._held.get(key)
        if held is None or not held.on_device:
            self._make_room(size if held is None else held.bytes)
            held = self._held[key] = self._read(read) if held is None else self._raised(held)
        if self._watch is not None:
            self._watch(held.network)
        self._held.move_to_end(key)
        if self._in_use is not None:
            self._in_use.add(key)
        return held.network

    def peek(self, keys: Iterable[Key]) -> tuple[nn.Module, ...]:
        """Those of the networks that are in memory."""
        return tuple(self._held[key].network for key in keys if key in self._held)

    @property
    def bytes(self) -> int:
        """What networks take on the device."""
        return sum(held.bytes for held in self._held.values() if held.on_device)

    @property
    def waiting_bytes(self) -> int:
        """What networks take that wait in RAM."""
        return sum(held.bytes for held in self._held.values() if not held.on_device)

    def room(self) -> int:
        """Bytes that networks could have on the device if all there are went."""
        return self._free() + self.bytes

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Within this context, models that are opened hold their networks here."""
        token = _shared.set(self)
        try:
            yield
        finally:
            _shared.reset(token)

    @contextmanager
    def using(self) -> Iterator[set[Key]]:
        """Whatever is fetched within stays until the end; it is in the set."""
        before = self._in_use
        self._in_use = used = set(before or ())
        try:
            yield used
        finally:
            self._in_use = before

    @contextmanager
    def watched(self, watch: Watch, reading: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """`watch` hears of each network whenever it is fetched; one is read in a context of `reading`."""
        self._watch, self._reading = watch, reading
        try:
            yield
        finally:
            self._watch, self._reading = None, nullcontext

    def evict(self, keep: Iterable[Key] = ()) -> bool:
        """All leave the device but those in use and those to `keep`, and what else is idle. Whether there was any."""
        stay = set(keep)
        leaving = [key for key in self._idle(on_device=True) if key not in stay]
        for key in leaving:
            self._lower(key)
        left = self.let_go() or bool(leaving)
        if left:
            self.give_back()
        return left

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop networks, wherever they are."""
        gone = [self._held.pop(key) for key in keys if key in self._held]
        if gone:
            gone.clear()
            self.give_back()

    def clear(self) -> None:
        """Drop all networks."""
        self.forget(list(self._held))

    def _read(self, read: Callable[[], nn.Module]) -> _Held:
        self.reads += 1
        # A network that is made for inference alone could not be moved or packed later.
        with torch.inference_mode(False), torch.no_grad(), self._reading():
            network = read().to(self.device.torch_device)
        return _Held(network, bytes_of(network))

    def _raised(self, held: _Held) -> _Held:
        try:
            held.network.to(self.device.torch_device)
        except BaseException:
            held.network.to("cpu")
            raise
        held.on_device = True
        return held

    def _make_room(self, size: int) -> None:
        if self.alone:
            self.evict()
        for key in self._idle(on_device=True):
            if self._free() >= size:
                return
            self._lower(key)
            self.give_back()
        if self.memory.limit is not None and self._free() < size:
            raise torch.OutOfMemoryError(f"tried to allocate {size} bytes, and {max(0, self._free())} were left")

    def _idle(self, *, on_device: bool) -> list[Key]:
        """Those that nobody uses, the ones used least recently first."""
        in_use = self._in_use or ()
        return [key for key, held in self._held.items() if held.on_device == on_device and key not in in_use]

    def _free(self) -> int:
        if self.memory.limit is not None:
            return self.memory.limit - self.bytes
        free, total = self.device.memory()
        return free - min(RESERVE, total // 10)

    def _lower(self, key: Key) -> None:
        """Move a network from the device to RAM, if it is another memory and has room.

        One that was packed is dropped: it has less to read again, and comes from there already.
        """
        held = self._held[key]
        one_memory = self.device.torch_device.type == "cpu" or key.storage != Storage.PLAIN
        if one_memory or not self._make_room_in_ram(held.bytes):
            del self._held[key]
            return
        held.on_device = False  # first, so that one that is cancelled on its way comes back as a whole
        held.network.to("cpu")

    def _make_room_in_ram(self, size: int) -> bool:
        for key in self._idle(on_device=False):
            if self._free_ram() >= size:
                break
            del self._held[key]
        return self._free_ram() >= size

    def _free_ram(self) -> int:
        if self.memory.ram is not None:
            return self.memory.ram - self.waiting_bytes
        free, total = machine_memory()
        return free - min(RESERVE, total // 10)

    def give_back(self) -> None:
        """Have the memory of all that is gone ready for others."""
        gc.collect()  # networks refer to themselves in circles
        self.device.release()


_shared: ContextVar[Residency | None] = ContextVar("_shared", default=None)


def residency_for(device: Device) -> Residency:
    """Where a model that is opened now holds its networks: where it was said, or in a place of its own."""
    return _shared.get() or Residency(device)
