"""Networks on a device and, where it has a memory of its own, in RAM; the ones used least recently make room."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.device import Device
from underpaint_backend.engine.precision import Memory, Storage
from underpaint_backend.engine.residency import Key, Residency

SIZE = 4 * 64 * 64
"""Bytes of a network."""


class Elsewhere(Device):
    """A device with a memory of its own: torch's "meta", which has addresses for tensors, and nothing at them."""

    def release(self) -> None:
        """There is nothing to be handed back."""


class Network(nn.Module):
    """One that can go to "meta", and come back without its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64, 64))

    def to(self, device: Any) -> Network:  # type: ignore[override]
        return self.to_empty(device=device)


def residency(on_device: float, in_ram: float) -> Residency:
    """Room for so many networks in each."""
    memory = Memory(limit=int(on_device * SIZE), ram=int(in_ram * SIZE))
    return Residency(Elsewhere(torch.device("meta"), torch.float32, "elsewhere"), memory)


def key(name: str, storage: Storage = Storage.PLAIN) -> Key:
    """What tells this network from others."""
    return Key(name, Network, torch.float32, storage)


def fetch(held: Residency, name: str, storage: Storage = Storage.PLAIN) -> nn.Module:
    """The network of this name."""
    return held.fetch(key(name, storage), SIZE, Network)


def places(held: Residency) -> dict[str, str]:
    """Where each of the networks a, b, ... is that are anywhere."""
    found = {name: held.peek([key(name)]) for name in "abcde"}
    return {name: network.weight.device.type for name, (network,) in ((n, f) for n, f in found.items() if f)}


def test_the_one_used_least_recently_goes_to_ram_and_from_there_away() -> None:
    """And both bounds hold."""
    held = residency(2.5, 1.5)
    for name in "abac":
        fetch(held, name)
    assert places(held) == {"a": "meta", "b": "cpu", "c": "meta"}
    assert (held.bytes, held.waiting_bytes) == (2 * SIZE, SIZE)

    fetch(held, "d")
    assert places(held) == {"a": "cpu", "c": "meta", "d": "meta"}
    assert (held.bytes, held.waiting_bytes) == (2 * SIZE, SIZE)
    assert held.reads == 4


def test_what_waits_in_ram_is_not_read_again() -> None:
    """It changes places with another."""
    held = residency(2.5, 1.5)
    first = fetch(held, "a")
    for name in "bc":
        fetch(held, name)
    assert fetch(held, "a") is first

    assert held.reads == 3
    assert places(held) == {"a": "meta", "b": "cpu", "c": "meta"}


def test_what_is_larger_than_all_of_ram_is_dropped() -> None:
    """Instead of waiting where it has no room."""
    held = residency(1.5, 0.5)
    for name in "ab":
        fetch(held, name)
    assert places(held) == {"b": "meta"}
    assert held.waiting_bytes == 0


def test_alternating_models_that_fit_into_both_are_read_once() -> None:
    """However often."""
    held = residency(1.5, 3.5)
    for _ in range(3):
        for name in "abcd":
            fetch(held, name)
    assert held.reads == 4


def test_what_is_in_use_stays_on_the_device() -> None:
    """Whatever else is wanted; if there is no room beside it, that is said."""
    held = residency(2.5, 2.5)
    with held.using():
        fetch(held, "a")
        for name in "bcd":
            with held.using():
                fetch(held, name)
        assert places(held)["a"] == "meta"
        fetch(held, "b")
        with pytest.raises(torch.OutOfMemoryError, match=f"tried to allocate {SIZE} bytes, and {SIZE // 2} were left"):
            fetch(held, "e")


def test_what_was_packed_does_not_wait() -> None:
    """It has less to read again."""
    held = residency(1.5, 9)
    fetch(held, "a", Storage.FP8)
    fetch(held, "b")

    assert key("a", Storage.FP8) not in held
    assert held.waiting_bytes == 0


def test_evicting_empties_the_device_alone() -> None:
    """But for what is to be kept."""
    held = residency(3.5, 3.5)
    for name in "abc":
        fetch(held, name)

    assert held.evict(keep=[key("b")])
    assert places(held) == {"a": "cpu", "b": "meta", "c": "cpu"}
    assert not held.evict(keep=[key("b")])
    held.clear()
    assert (held.bytes, held.waiting_bytes, places(held)) == (0, 0, {})


def test_one_that_is_cancelled_on_its_way_to_ram_comes_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it in each memory would be of no use to the next job."""

    def half(network: Network, device: Any) -> Network:
        network.to_empty(device=device)
        raise Cancelled

    held = residency(1.5, 9)
    fetch(held, "a")
    with monkeypatch.context() as patch:
        patch.setattr(Network, "to", half)
        with pytest.raises(Cancelled):
            held.evict()

    fetch(held, "a")
    assert places(held) == {"a": "meta"}
