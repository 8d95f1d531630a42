"""Every exception of the engine that an artist may hear of.

::

    EngineError              anything below; `info` is the line of the protocol's table that travels
    ├── UnknownScheduler     no scheduler has this name
    │   └── WrongHybrid      schedulers that cannot be used in turn
    ├── NoReferences         a model cannot look at pictures, whatever its entry promises
    ├── ModelBroken          files that are missing, damaged or not of the family that they claim
    ├── OutOfMemory          the device has not enough memory
    ├── WrongLora            a LoRA was made for something else than the model
    ├── UnknownLora          there is no LoRA of this name
    ├── CannotQuantise       weights cannot be kept as somebody chose; it is in `quantisation`
    └── NotFinite            the model's output overflowed

`BadFiles` is not among them: it is how a family says what is wrong with a folder, before the model has a name.
`engine.cancel.Cancelled` is not either: it is no error, and nobody should catch it by accident.
"""

from __future__ import annotations

from collections.abc import Iterable

from underpaint_protocol.errors import ErrorInfo, describe

from ..models.schedulers import hybrid_error


class BadFiles(Exception):
    """A folder does not hold a model that its family can load; the text says why."""


class EngineError(Exception):
    """Base class of the engine's errors. `info` says what happened, for the artist."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


class UnknownScheduler(EngineError):
    """There is no scheduler called `name`; `known` are those there are."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(describe("unknown_scheduler", detail=name, known=", ".join(known)))


class WrongHybrid(UnknownScheduler):
    """The hybrid `name` cannot be used for the reason `detail`; `known` are the schedulers that the model has."""

    def __init__(self, name: str, detail: str, known: Iterable[str]) -> None:
        known = tuple(known)
        super().__init__(name, known)
        self.info = hybrid_error(name, detail, known)


class NoReferences(EngineError):
    """The model cannot look at pictures, though its entry says that it takes references or edits."""

    def __init__(self, model: str) -> None:
        detail = "whatever its entry says, it can look at no reference picture, and so it can edit none"
        super().__init__(describe("unsupported_task", model=model, detail=detail))


class ModelBroken(EngineError):
    """The model's files are missing, damaged, or not of the family that they claim."""

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(describe("model_broken", model=model, detail=detail))


class WrongLora(EngineError):
    """A LoRA was made for something else than the model."""

    def __init__(self, lora: str, made_for: str, model: str) -> None:
        super().__init__(describe("wrong_lora", lora=lora, detail=made_for, model=model))


class UnknownLora(EngineError):
    """There is no LoRA of this name."""

    def __init__(self, lora: str) -> None:
        super().__init__(describe("unknown_lora", detail=lora))


class OutOfMemory(EngineError):
    """The device has not enough memory; `needed` and `free` in bytes, `needed` is None where nobody said."""

    def __init__(self, needed: int | None, free: int) -> None:
        asked = "more memory" if needed is None else f"{_gigabytes(needed)} more"
        super().__init__(describe("out_of_memory", detail=f"it needed {asked}, and {_gigabytes(free)} were free"))


class NotFinite(EngineError):
    """The model's output holds values that are not numbers, so there is no picture in it."""

    def __init__(self, model: str) -> None:
        super().__init__(describe("not_finite", model=model))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
