"""The networks and tokenizers of one model, under the names that diffusers gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn

from .device import Device, is_out_of_memory
from .exceptions import BadFiles
from .sources import Source

Precision: TypeAlias = Literal["half", "bfloat16", "float32"]
"""What a network calculates in on a device with half precision; on a CPU all is float32."""


@dataclass(frozen=True)
class Network:
    """How a family loads one of its networks. One that is `optional` may be missing in some models."""

    cls: Any
    precision: Precision = "half"
    optional: bool = False


class Parts:
    """What a family works with: `parts["unet"]` is a network that is ready to be called."""

    def __init__(self, source: Source, device: Device, specs: Mapping[str, Network]) -> None:
        self.source = source
        self.device = device
        self._specs = specs
        self._networks: dict[str, nn.Module] = {}
        self._tokenizers: dict[str, Any] = {}

    def load(self, on_part: Callable[[float], None]) -> None:
        """Load all networks. `on_part` hears what fraction of their bytes is loaded, before each.

        Raises `BadFiles`.
        """
        sizes = {name: self.source.weight_bytes(name) for name in self._specs if self.has(name)}
        done, total = 0, max(1, sum(sizes.values()))
        for name, size in sizes.items():
            on_part(done / total)
            _ = self[name]
            done += size

    def has(self, name: str) -> bool:
        """Whether the model has this part."""
        return self.source.has(name)

    def __getitem__(self, name: str) -> Any:
        """The network `name`, on the device.

        Raises `BadFiles`.
        """
        if name not in self._networks:
            spec = self._specs[name]
            dtype = self.device.dtype_for(spec.precision)
            network = self._read(lambda: self.source.network(name, spec.cls, dtype))
            self._networks[name] = network.to(self.device.torch_device)
        return self._networks[name]

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of a part, also of the scheduler.

        Raises `BadFiles`.
        """
        found: dict[str, Any] = self._read(lambda: self.source.config(name))
        return found

    def tokenizer(self, name: str, cls: Any) -> Any:
        """The tokenizer or image processor `name`.

        Raises `BadFiles`.
        """
        if name not in self._tokenizers:
            self._tokenizers[name] = self._read(lambda: self.source.tokenizer(name, cls))
        return self._tokenizers[name]

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All that are loaded, for whoever wants to reach into them."""
        return tuple(self._networks.values())

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except BadFiles:
            raise
        except Exception as error:  # whatever damaged files make the libraries raise
            if is_out_of_memory(error):
                raise
            words = self.source.anonymous(str(error)).splitlines() or [""]
            raise BadFiles(f"{type(error).__name__}: {words[0]}") from error
