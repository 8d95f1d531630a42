"""Whether a model fits into the memory of a machine, and at which precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from underpaint_protocol.messages import Model

BYTES_PER_WEIGHT = {"bf16": 2.0, "fp8": 1.0, "nf4": 0.5625}
"""What a weight takes, with its share of scales."""

LEAST_PER_WEIGHT = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "nf4": BYTES_PER_WEIGHT["nf4"]}
"""What a weight takes at least in a precision that somebody chose. All else can be kept in 8 bits where memory is
short, which every install can do by itself."""

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


@dataclass(frozen=True)
class Choice:
    """What somebody chose about memory, in the words of `serve`; `limit` is in bytes, for weights on the device."""

    precision: str = "auto"
    offload: str = "auto"
    limit: int | None = None


@dataclass(frozen=True)
class Room:
    """Where weights can be: free and total bytes of the device, and of the RAM beside it, if those are two memories.

    On a CPU, layers whose turn has not come wait on the disk, elsewhere in RAM.
    """

    free: int
    total: int
    ram_free: int = 0
    ram_total: int = 0
    on_cpu: bool = False

    def within(self, choice: Choice) -> tuple[int, int]:
        """Free and total bytes for weights.

        Without offload they must be on the device, within the limit. Else what is above it waits elsewhere.
        """
        stays = choice.offload == "none"
        limit = self.total if choice.limit is None or (self.on_cpu and not stays) else choice.limit
        free, total = min(self.free, limit), min(self.total, limit)
        return (free, total) if stays else (free + self.ram_free, total + self.ram_total)


DEFAULT = Choice()
"""Nobody chose anything."""


def fitness(model: Model, room: Room, choice: Choice = DEFAULT, *, filed: bool = False) -> str:
    """Why `model` cannot run where there is this room for weights; "" if it can.

    It is not held against it that others use memory now: they may be asked to leave. `model.memory` is its peak in
    bf16, and 0 where that is not known. If it is `filed`, its files are quantised, and its weights stay as they are
    there. Where layers are read from the disk for each pass, little is needed at once, and how much that is nobody
    knows before it was tried.
    """
    grouped = choice.offload == "group"
    if grouped and room.on_cpu and not filed:
        return ""
    # Layers that wait in RAM are as they are calculated with.
    per_weight = LEAST_PER_WEIGHT.get(choice.precision, BYTES_PER_WEIGHT["bf16" if grouped else "fp8"])
    least = model.memory if filed else round(model.memory * per_weight / BYTES_PER_WEIGHT["bf16"])
    free, total = room.within(choice)
    if least <= total:
        return ""
    return f"it needs {in_gib(least)} of memory at least, and there are {in_gib(total)}, {in_gib(free)} of them free"


def in_gib(size: int) -> str:
    """A number of bytes as memory is sold."""
    return f"{size / GIB:.1f} GiB"


def fitted(model: Model, reason: str) -> Model:
    """The model, marked "unfit" if there is a reason."""
    return replace(model, state="unfit", detail=reason) if reason else model
