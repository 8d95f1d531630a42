"""Where the parts of a model come from. Everything here is read from this machine; nothing asks the network."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..models.extras import quantiser_of
from ..models.headers import PICKLES, BadFile, read_header
from ..models.selection import one_variant
from .exceptions import BadFiles
from .filling import empty, is_of_diffusers, keeps_some_exact, needed, refuse_gaps, stored_names
from .packing import Unread, in_files
from .quantisation import filled_as_stored
from .quantised_files import read_quantised


class Source(ABC):
    """The parts of one model, by the names that diffusers gives them: "unet", "text_encoder_2", "tokenizer", ...

    Whatever damaged files make the libraries raise passes through; `Parts` makes a `BadFiles` of it.
    """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a part."""

    @abstractmethod
    def config(self, name: str) -> dict[str, Any]:
        """The configuration of a part; that of the scheduler, too, and "model_index", that of the whole."""

    @abstractmethod
    def network(self, name: str, cls: Any, dtype: torch.dtype) -> nn.Module:
        """The network `name` of class `cls`, on the CPU, for inference only."""

    @abstractmethod
    def unread(self, name: str, cls: Any, dtype: torch.dtype) -> tuple[nn.Module, Mapping[str, Unread]] | None:
        """The same network without its weights, and these, each to be read when it is wanted.

        None if they are not stored one by one as it needs them.
        """

    @abstractmethod
    def tokenizer(self, name: str, cls: Any) -> Any:
        """The tokenizer, or image processor, `name` of class `cls`."""

    @abstractmethod
    def weight_bytes(self, name: str) -> int:
        """Bytes of the files with a network's weights."""

    @abstractmethod
    def weight_files(self, name: str) -> list[Path]:
        """The files that hold a network's weights and nothing else, by the names of its parameters; [] if none do.

        Raises `BadFiles` if the header of one is damaged.
        """

    @abstractmethod
    def quantised_bytes(self, name: str) -> int:
        """What a network takes whose files hold its weights quantised; 0 if they are plain numbers, or none."""

    @abstractmethod
    def quantised_network(
        self, name: str, cls: Any, dtype: torch.dtype, device: torch.device, *, waits: bool
    ) -> nn.Module:
        """Such a network, its layers as they are in the files, restored on `device` for the time of their passes.

        They are kept there or, if they wait, in RAM. Raises `BadFiles`, also if the extra that it needs is missing.
        """

    @abstractmethod
    def anonymous(self, words: str) -> str:
        """The words of an error without the path of the files, which is nobody's business."""

    @abstractmethod
    def identity(self, name: str) -> Hashable:
        """What tells a network's weights from all others: the same in two models that share them."""

    @abstractmethod
    def state(self) -> Hashable:
        """What changes whenever a file does that the parts come from. None of them is read for it."""


class FolderSource(Source):
    """A folder in diffusers' layout: one folder for each part. Those in `elsewhere` lie there, also as single files."""

    def __init__(self, folder: Path, elsewhere: Mapping[str, Path] | None = None) -> None:
        self.folder = folder
        self._elsewhere = dict(elsewhere or {})

    def has(self, name: str) -> bool:
        return self._place(name).is_dir() or (name in self._elsewhere and self._place(name).is_file())

    def config(self, name: str) -> dict[str, Any]:
        if name == "model_index":
            file = self.folder / "model_index.json"
        else:
            file = self._place(name) / ("scheduler_config.json" if name == "scheduler" else "config.json")
        try:
            found: Any = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            part = file.name if file.parent == self.folder else name
            whose = name if self._place(name).is_dir() else "it"
            raise BadFiles(f"{whose} has no {file.name if whose == name else part}") from None
        if not isinstance(found, dict):
            raise BadFiles(f"{file.parent.name}/{file.name} must hold one object")
        return found

    def network(self, name: str, cls: Any, dtype: torch.dtype) -> nn.Module:
        folder = self._place(name)
        weights = [path.name for path in self.weight_files(name)]
        if not weights:
            raise BadFiles(_what_is_there_instead(folder))
        variant = "fp16" if all(re.search(r"\.fp16[.-]", name) for name in weights) else None
        where = {"variant": variant, "use_safetensors": True, "local_files_only": True}
        network, report = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True, **where)
        refuse_gaps(name, report["missing_keys"])
        found: nn.Module = network.eval().requires_grad_(False)
        return found

    def unread(self, name: str, cls: Any, dtype: torch.dtype) -> tuple[nn.Module, Mapping[str, Unread]] | None:
        paths = self.weight_files(name)
        if not paths or not (hasattr(cls, "from_config") or hasattr(cls, "config_class")):
            return None
        network = empty(cls, self.config(name), dtype)
        if keeps_some_exact(network, dtype):
            return None
        renamed = getattr(cls, "renamed", str)
        weights = _matched(network, {renamed(key): weight for key, weight in in_files(paths).items()})
        if weights.keys() >= needed(network):
            return network, weights
        if is_of_diffusers(cls):
            refuse_gaps(name, needed(network) - weights.keys())
        return None  # transformers may know by which names they go there.

    def tokenizer(self, name: str, cls: Any) -> Any:
        return cls.from_pretrained(self._place(name), local_files_only=True)

    def weight_bytes(self, name: str) -> int:
        return sum(path.stat().st_size for path in self._weights(name))

    def weight_files(self, name: str) -> list[Path]:
        found = self._weights(name)
        for path in found:
            try:
                read_header(path)
            except BadFile as error:
                file = path.name if path == self._place(name) else f"{name}/{path.name}"
                raise BadFiles(f"{file}: {error}") from error
        return found

    def quantised_bytes(self, name: str) -> int:
        return self.weight_bytes(name) if self._quantiser(name) else 0

    def quantised_network(
        self, name: str, cls: Any, dtype: torch.dtype, device: torch.device, *, waits: bool
    ) -> nn.Module:
        weights = read_quantised(self.weight_files(name), self._quantiser(name))
        return filled_as_stored(name, empty(cls, self.config(name), dtype), weights, dtype, device, waits=waits)

    def _quantiser(self, name: str) -> str:
        """Which library packed a network's weights; "" if none did."""
        return quantiser_of(self.config(name)) if (self._place(name) / "config.json").is_file() else ""

    def anonymous(self, words: str) -> str:
        for folder in (self.folder, *self._elsewhere.values()):
            words = words.replace(str(folder), folder.name)
        return words

    def identity(self, name: str) -> Hashable:
        """The files behind the weights: links into the hub's cache lead to the same file from every repository."""
        return tuple(stamp(path) for path in self._weights(name))

    def state(self) -> Hashable:
        files = [self.folder / "model_index.json", *self.folder.glob("[!.]*/[!.]*")]
        for place in self._elsewhere.values():
            files += [place, *place.glob("[!.]*")]
        return tuple((str(path), stamp(path)) for path in sorted(files) if path.is_file())

    def _weights(self, name: str) -> list[Path]:
        place = self._place(name)
        if place.is_file():
            return [place]
        names = sorted(path.name for path in place.glob("*.safetensors"))
        # Whole repositories hold the same weights in several precisions, of which the catalog fetches those in half.
        return [place / name for name in one_variant(names, "fp16") or names]

    def _place(self, name: str) -> Path:
        return self._elsewhere.get(name, self.folder / name)


def stamp(path: Path) -> Hashable:
    """What tells a file from all others, and from itself before it was written anew. None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _matched(network: nn.Module, weights: Mapping[str, Unread]) -> dict[str, Unread]:
    """The weights by the names of a network's parameters, which the files may hold as a part of something larger."""
    wanted = needed(network)
    prefixes = ("", f"{getattr(network, 'base_model_prefix', '')}.", "text_model.")
    named = ({name.removeprefix(prefix): weight for name, weight in weights.items()} for prefix in prefixes)
    best = max(named, key=lambda found: len(wanted & found.keys()))
    for other, source in stored_names(network).items():
        if source not in best and other in best:  # of what is there under two names, they have the other one
            best[source] = best[other]
    return best


def _what_is_there_instead(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []
    if not pickles:
        return f"{folder.name} has no safetensors"
    return (
        f"{folder.name}/{pickles[0]} is of a kind that can run any program when it is opened. Convert it on a machine "
        "where that does no harm, with diffusers' save_pretrained(folder, safe_serialization=True)"
    )
