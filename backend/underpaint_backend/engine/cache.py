"""Tensors that are likely to be needed again, by what they were made from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

V = TypeVar("V", Tensor, tuple[Tensor, ...])
CPU = torch.device("cpu")


class TensorCache(Generic[V]):
    """Tensors, or tuples of them, by key, in RAM, bounded in bytes; the ones used least recently are dropped."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], V], device: torch.device = CPU) -> V:
        """What is under `key`, on `device`; where there is nothing, what `make` returns, which is kept."""
        found = self._values.get(key)
        if found is None:
            made = make()
            self._keep(key, _moved(made, CPU))
            return made
        self._values.move_to_end(key)
        return _moved(found, device)

    def _keep(self, key: Hashable, value: V) -> None:
        if _bytes_of(value) > self.max_bytes:
            return
        self._values[key] = value
        self.bytes += _bytes_of(value)
        while self.bytes > self.max_bytes:
            _, dropped = self._values.popitem(last=False)
            self.bytes -= _bytes_of(dropped)


def _moved(value: V, device: torch.device) -> V:
    if isinstance(value, Tensor):
        return value.to(device)
    return tuple(tensor.to(device) for tensor in value)


def _bytes_of(value: Tensor | tuple[Tensor, ...]) -> int:
    return value.nbytes if isinstance(value, Tensor) else sum(tensor.nbytes for tensor in value)
