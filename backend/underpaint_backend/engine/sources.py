"""Where the parts of a model come from. Everything here is read from this machine; nothing asks the network."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .exceptions import BadFiles

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Endings of weights that are programs as much as numbers; none is ever opened."""


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
    def tokenizer(self, name: str, cls: Any) -> Any:
        """The tokenizer, or image processor, `name` of class `cls`."""

    @abstractmethod
    def weight_bytes(self, name: str) -> int:
        """Bytes of the files with a network's weights."""

    @abstractmethod
    def anonymous(self, words: str) -> str:
        """The words of an error without the path of the files, which is nobody's business."""

    @abstractmethod
    def identity(self, name: str) -> Hashable:
        """What tells a network's weights from all others: the same in two models that share them."""


class FolderSource(Source):
    """A folder in diffusers' layout: one folder for each part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        return (self.folder / name).is_dir()

    def config(self, name: str) -> dict[str, Any]:
        special = {"scheduler": "scheduler/scheduler_config.json", "model_index": "model_index.json"}
        file = special.get(name, f"{name}/config.json")
        found: Any = json.loads((self.folder / file).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise BadFiles(f"{file} must hold one object")
        return found

    def network(self, name: str, cls: Any, dtype: torch.dtype) -> nn.Module:
        folder = self.folder / name
        weights = [path.name for path in folder.glob("*.safetensors")]
        if not weights:
            raise BadFiles(_what_is_there_instead(folder))
        variant = "fp16" if all(re.search(r"\.fp16[.-]", name) for name in weights) else None
        where = {"variant": variant, "use_safetensors": True, "local_files_only": True}
        network, report = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True, **where)
        refuse_gaps(name, report["missing_keys"])
        found: nn.Module = network.eval().requires_grad_(False)
        return found

    def tokenizer(self, name: str, cls: Any) -> Any:
        return cls.from_pretrained(self.folder / name, local_files_only=True)

    def weight_bytes(self, name: str) -> int:
        return sum(path.stat().st_size for path in self._weights(name))

    def anonymous(self, words: str) -> str:
        return words.replace(str(self.folder), self.folder.name)

    def identity(self, name: str) -> Hashable:
        """The files behind the weights: links into the hub's cache lead to the same file from every revision."""
        files = (path.resolve() for path in self._weights(name))
        return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)

    def _weights(self, name: str) -> list[Path]:
        return sorted((self.folder / name).glob("*.safetensors"))


def refuse_gaps(name: str, missing: Sequence[str]) -> None:
    """Raises `BadFiles` if a network's weights are not all there. Some buffers are made anew and never stored."""
    lacking = sorted(key for key in missing if not key.endswith("position_ids"))
    if lacking:
        raise BadFiles(f"{name} lacks {len(lacking)} weights, such as {lacking[0]}")


def _what_is_there_instead(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []
    if not pickles:
        return f"{folder.name} has no safetensors"
    return (
        f"{folder.name}/{pickles[0]} is of a kind that can run any program when it is opened. Convert it on a machine "
        "where that does no harm, with diffusers' save_pretrained(folder, safe_serialization=True)"
    )
