"""The device that models run on: what torch finds here, what it is called, and how much memory it has left."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]
import torch


@dataclass(frozen=True)
class Device:
    """A device and the precision that suits it. `name` is for people, such as "cuda:0 NVIDIA L4"."""

    torch_device: torch.device
    dtype: torch.dtype
    name: str

    def dtype_for(self, precision: str) -> torch.dtype:
        """What a network that suits "half", "bfloat16" or "float32" calculates in here."""
        if precision == "float32" or self.dtype == torch.float32:
            return torch.float32
        return torch.bfloat16 if precision == "bfloat16" else self.dtype

    def memory(self) -> tuple[int, int]:
        """Free and total memory in bytes."""
        if self.torch_device.type in ("cuda", "xpu"):
            free, total = torch.get_device_module(self.torch_device).mem_get_info(self.torch_device)
            return free, total
        system = psutil.virtual_memory()
        if self.torch_device.type == "mps":
            total = torch.mps.recommended_max_memory()
            return max(0, total - torch.mps.driver_allocated_memory()), total
        return system.available, system.total

    def release(self) -> None:
        """Hand the memory of tensors that are gone back to the device."""
        if self.torch_device.type != "cpu":
            torch.get_device_module(self.torch_device).empty_cache()


def open_device(wanted: str = "auto") -> Device:
    """The device called `wanted`, in torch's words: "cpu", "cuda:0", "xpu", "mps". "auto" is the best there is.

    Raises `ValueError` if there is no such device.
    """
    device = _best() if wanted == "auto" else _named(wanted)
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    return Device(device, dtype, f"{device} {_product(device)}".strip())


def is_out_of_memory(error: Exception) -> bool:
    """Whether this says, in any of the ways that there are, that the device or the machine had not enough memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _best() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None else torch.device(found.type, 0)


def _named(wanted: str) -> torch.device:
    try:
        device = torch.device(wanted)
        if device.type != "cpu":
            device = torch.device(device.type, device.index or 0)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"there is no device {wanted!r}: {str(error).splitlines()[0]}") from None
    return device


def _product(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    return platform.processor() if device.type == "mps" else ""
