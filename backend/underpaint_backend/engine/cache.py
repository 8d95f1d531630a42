"""Tensors that are likely to be needed again, by what they were made from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor


class TensorCache:
    """Tensors by key, bounded in bytes; the ones used least recently are dropped."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tensors)

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor under `key`; where there is none, the one that `make` returns, which is kept."""
        found = self._tensors.get(key)
        if found is None:
            found = make()
            self._keep(key, found)
        else:
            self._tensors.move_to_end(key)
        return found

    def _keep(self, key: Hashable, tensor: Tensor) -> None:
        if tensor.nbytes > self.max_bytes:
            return
        self._tensors[key] = tensor
        self.bytes += tensor.nbytes
        while self.bytes > self.max_bytes:
            _, dropped = self._tensors.popitem(last=False)
            self.bytes -= dropped.nbytes
