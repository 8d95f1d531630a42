"""The device that models run on: what torch finds here, what it is called, and how much memory it has left."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]
import torch

from .. import malloc

KEPT, RETURNED = 32 << 20, 128 << 10
"""Bytes above which what tensors leave on a CPU goes back to the system at once: as a rule, and where memory is short.
With the second, a step of Stable Diffusion takes an eighth longer."""
SIGNS = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
)
"""Words that errors of want of memory have; they come from torch, safetensors, C++, and from oneDNN, which says no more
than that it could not, in classes of all kinds."""

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


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
        """Free and total memory in bytes, as far as this process is allowed to have it."""
        if self.torch_device.type == "cuda":
            return _of_graphics_card(self.torch_device)
        if self.torch_device.type == "xpu":
            free, total = torch.get_device_module(self.torch_device).mem_get_info(self.torch_device)
            return free, total
        if self.torch_device.type == "mps":
            total = torch.mps.recommended_max_memory()
            return max(0, total - torch.mps.driver_allocated_memory()), total
        return machine_memory()

    def release(self) -> None:
        """Hand the memory of tensors that are gone back to the device."""
        if self.torch_device.type != "cpu":
            torch.get_device_module(self.torch_device).empty_cache()
        else:
            malloc.trim()  # what was small is kept, and that adds up

    def keep_freed(self, keep: bool) -> None:
        """Whether the memory of tensors that are gone may be kept for others, which is faster, but leaves holes.

        Graphics cards' memory is kept by torch, which gives it back itself before it runs out.
        """
        if self.torch_device.type == "cpu":
            malloc.return_above(KEPT if keep else RETURNED)


def open_device(wanted: str = "auto") -> Device:
    """The device called `wanted`, in torch's words: "cpu", "cuda:0", "xpu", "mps". "auto" is the best there is.

    Raises `ValueError` if there is no such device.
    """
    device = _best() if wanted == "auto" else _named(wanted)
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    return Device(device, dtype, f"{device} {_product(device)}".strip())


def machine_memory() -> tuple[int, int]:
    """Free and total memory of the machine in bytes; less where the system holds this process to less."""
    system = psutil.virtual_memory()
    free, total = system.available, system.total
    for limit, used in _limits():
        free, total = min(free, max(0, limit - used)), min(total, limit)
    return free, total


def is_out_of_memory(error: Exception) -> bool:
    """Whether this says, in any of the ways that there are, that the device or the machine had not enough memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error).lower()
    # Libraries that load files hide what went wrong behind errors of their own.
    behind = error.__cause__ or error.__context__
    return any(sign in words for sign in SIGNS) or (isinstance(behind, Exception) and is_out_of_memory(behind))


def uses_onednn() -> bool:
    """Whether a CPU calculates with oneDNN, which is fast."""
    return bool(torch.backends.mkldnn.enabled)


def use_onednn(use: bool) -> None:
    """Calculate with oneDNN on a CPU, or without.

    A function that it once had no memory to compile, it refuses ever after, however much there is then.
    """
    torch.backends.mkldnn.set_flags(use)  # type: ignore[no-untyped-call]


def bytes_wanted(error: Exception) -> int | None:
    """The bytes that could not be had, where the message says."""
    match = re.search(r"(?:tried|unable) to allocate ([\d.]+) ?(bytes|[KMG]iB)", str(error), re.IGNORECASE)
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def _of_graphics_card(device: torch.device) -> tuple[int, int]:
    """What torch keeps for tensors to come counts as free, up to the share that this process may have."""
    free, total = torch.cuda.mem_get_info(device)
    held, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    share = int(torch.cuda.get_per_process_memory_fraction(device) * total)
    return max(0, min(free + held - used, share - used)), min(total, share)


def _limits() -> Iterator[tuple[int, int]]:
    """What the system allows this process in bytes, and what of it is used."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = psutil.Process().memory_info()
    for kind, size in ((resource.RLIMIT_DATA, getattr(used, "data", 0)), (resource.RLIMIT_AS, used.vms)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit, size


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
        # What torch says of a word that is no device at all is a list of all that anybody ever made.
        said = "" if str(error).startswith("Expected one of") else f" ({str(error).splitlines()[0].rstrip('.')})"
        there = ", ".join(_names())
        raise ValueError(f"there is no device “{wanted}” here{said}. There is: {there}") from None
    return device


def _names() -> Iterator[str]:
    """What devices are called that are here."""
    yield "cpu"
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is not None:
        yield from (f"{found.type}:{number}" for number in range(torch.accelerator.device_count()))


def _product(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    return platform.processor() if device.type == "mps" else ""
