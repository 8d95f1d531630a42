"""Whether a model fits into the memory of a machine, and at which precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from underpaint_protocol.messages import Model

BYTES_PER_WEIGHT = {"bf16": 2.0, "fp8": 1.0, "nf4": 0.5625}
"""What a weight takes, with its share of scales."""

SMALLEST = "fp8"
"""What every install can go down to by itself; nf4 somebody has to choose."""

GIB = 1 << 30


def peak_bytes(denoiser: float, text: float, vae: float) -> dict[str, int]:
    """Bytes of weights that are needed at once, by precision, for a model of these many billions of parameters.

    The prompt is encoded before painting begins, so its encoder and the denoiser need not be there together. The VAE
    is always there, and is never stored smaller than bf16.
    """
    return {
        name: round(1e9 * (max(denoiser, text) * size + 2 * vae))
        for name, size in BYTES_PER_WEIGHT.items()
        if denoiser or text
    }


def fitness(model: Model, free: int, total: int, precision: str = "auto") -> str:
    """Why `model` cannot run where there are `total` bytes of memory, of which `free` are free; "" if it can.

    It is not held against it that others use memory now: they may be asked to leave. `model.memory` is its peak in
    bf16, and 0 where that is not known. Where weights can wait in RAM while others work, `total` is device and RAM.
    `precision` is what somebody chose.
    """
    smallest = min(BYTES_PER_WEIGHT[SMALLEST], BYTES_PER_WEIGHT.get(precision, 2.0))
    least = round(model.memory * smallest / BYTES_PER_WEIGHT["bf16"])
    if least <= total:
        return ""
    return f"it needs {in_gib(least)} of memory at least, and there are {in_gib(total)}, {in_gib(free)} of them free"


def fitted(models: Iterable[Model], free: int, total: int, precision: str = "auto") -> tuple[Model, ...]:
    """`models`, with those marked "unfit" that cannot run in this memory."""
    return tuple(_fitted(model, fitness(model, free, total, precision)) for model in models)


def in_gib(size: int) -> str:
    """A number of bytes as memory is sold."""
    return f"{size / GIB:.1f} GiB"


def _fitted(model: Model, reason: str) -> Model:
    return replace(model, state="unfit", detail=reason) if reason else model
