"""Models in one file, as ComfyUI and A1111 keep them. Nothing here asks the network.

The file has numbers and no words on how they belong together: the configurations come from the packs beside
`models/recognise.py`, and diffusers' converters give the numbers the names that its classes know.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import single_file_utils
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..models.gguf import GgufHeader, header_of
from ..models.headers import BadFile, Header
from ..models.recognise import PACKS, Recognised, parts_in, recognise
from ..models.schedulers import noted_in
from .exceptions import BadFiles
from .filling import empty, filled
from .packing import Unread, located
from .quantisation import filled_as_stored
from .quantised_files import from_gguf, read_gguf_tensors, restored
from .sources import FolderSource, Source, stamp

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "preprocessor_config.json", "processor_config.json")
DENOISERS = ("unet", "transformer")
"""Networks that stay quantised if they are so in a file. The others are small, and were meant to be plain."""
START, END = "<|startoftext|>", "<|endoftext|>"


class SingleFileSource(Source):
    """A model whose parts come from the file `checkpoint`, as far as it holds them, and else from `folder`.

    The folder is in diffusers' layout: another model of the family, which has what the file lacks, or a pack, which
    has configurations only. Those of what the file holds are in `pack`, or, without one, in the pack that its header
    and its name tell.
    """

    def __init__(self, checkpoint: Path, folder: Path, pack: Path | None = None) -> None:
        self._pack = pack
        self.checkpoint = checkpoint
        self.folder = folder
        self._beside = FolderSource(folder)

    @cached_property
    def header(self) -> Header:
        """What the file says of itself.

        Raises `BadFiles`.
        """
        try:
            return header_of(self.checkpoint)
        except BadFile as error:
            raise BadFiles(f"{self.checkpoint.name}: {error}") from error

    @cached_property
    def what(self) -> Recognised:
        """What the file is.

        Raises `BadFiles`.
        """
        try:
            return recognise(self.header)
        except BadFile as error:
            raise BadFiles(f"{self.checkpoint.name}: {error}") from error

    @cached_property
    def _parts(self) -> Mapping[str, str]:
        """The parts that the file holds, and what their tensors' names begin with."""
        _ = self.what
        return parts_in(self.header)

    @cached_property
    def _places(self) -> tuple[Path, ...]:
        """Where configurations are, the best first: the folder may be that of a sister, with another denoiser."""
        pack = self._pack or self.what.pack(self.checkpoint.stem)
        return (pack, self.folder) if pack is not None else (self.folder,)

    def has(self, name: str) -> bool:
        return name in self._parts or self._beside.has(name)

    def config(self, name: str) -> dict[str, Any]:
        of_file = name in self._parts or name in ("scheduler", "model_index")
        found = FolderSource(self._place(name) if of_file else self.folder).config(name)
        return dict(noted_in(found, self.header.tensors)) if name == "scheduler" else found

    def network(self, name: str, cls: Any, dtype: torch.dtype) -> nn.Module:
        if name not in self._parts:
            if not list((self.folder / name).glob("*.safetensors")):
                raise BadFiles(f"{self.checkpoint.name} has no {name}, and no other {self.what.name} has one for it")
            return self._beside.network(name, cls, dtype)
        network, weights = self._apart(name, cls, dtype)
        return filled(name, network, weights, dtype, torch.device("cpu"), lambda _: None)

    def unread(self, name: str, cls: Any, dtype: torch.dtype) -> tuple[nn.Module, Mapping[str, Unread]] | None:
        if name not in self._parts:
            return self._beside.unread(name, cls, dtype)
        # What is restored from a GGUF file is here already.
        return None if isinstance(self.header, GgufHeader) else self._apart(name, cls, dtype)

    def _apart(self, name: str, cls: Any, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Unread]]:
        """A network without its weights, and these, by its own names."""
        network, stored = empty(cls, self.config(name), dtype), self._read(name)
        found = self._converted(name, cls, network, stored)
        if isinstance(self.header, GgufHeader):
            return network, {key: Unread.of(value) for key, value in found.items()}
        # They are mapped from the file until here, and whoever wrote it anew would take them away.
        tensors = {tensor: (value, self.header.tensors[tensor]) for tensor, value in stored.items()}
        return network, located(self.checkpoint, tensors, found)

    def tokenizer(self, name: str, cls: Any) -> Any:
        folder = self.folder / name
        if any((folder / file).is_file() for file in TOKENIZER_FILES):
            return self._beside.tokenizer(name, cls)
        config = self._place(name) / name / "tokenizer_config.json"
        if not issubclass(cls, CLIPTokenizer) or not config.is_file():
            raise BadFiles(f"{self.checkpoint.name} has no {name}, and no other {self.what.name} has one for it")
        return _clip_tokenizer(cls, json.loads(config.read_text(encoding="utf-8")))

    def weight_bytes(self, name: str) -> int:
        if name in self._parts:
            return sum(self.header.tensors[tensor].size for tensor in self._tensors(name))
        return self._beside.weight_bytes(name)

    def weight_files(self, name: str) -> list[Path]:
        return [] if name in self._parts else self._beside.weight_files(name)

    def quantised_bytes(self, name: str) -> int:
        if name not in self._parts:
            return self._beside.quantised_bytes(name)
        return self.weight_bytes(name) if name in DENOISERS and isinstance(self.header, GgufHeader) else 0

    def quantised_network(
        self, name: str, cls: Any, dtype: torch.dtype, device: torch.device, *, waits: bool
    ) -> nn.Module:
        if name not in self._parts:
            return self._beside.quantised_network(name, cls, dtype, device, waits=waits)
        network = empty(cls, self.config(name), dtype)
        weights = from_gguf(self._converted(name, cls, network, self._read(name)))
        return filled_as_stored(name, network, weights, dtype, device, waits=waits)

    def anonymous(self, words: str) -> str:
        return self._beside.anonymous(words).replace(str(self.checkpoint), self.checkpoint.name)

    def identity(self, name: str) -> Hashable:
        if name not in self._parts:
            return self._beside.identity(name)
        return stamp(self.checkpoint), name

    def state(self) -> Hashable:
        return stamp(self.checkpoint), self._beside.state()

    def _place(self, name: str) -> Path:
        wanted = "model_index.json" if name == "model_index" else name
        return next((place for place in self._places if (place / wanted).exists()), self._places[-1])

    def _tensors(self, name: str) -> list[str]:
        """The names of a part's tensors in the file."""
        prefix = self._parts[name]
        return [tensor for tensor in self.header.tensors if tensor.startswith(prefix)]

    def _read(self, name: str) -> dict[str, Tensor]:
        if isinstance(self.header, GgufHeader):
            found = read_gguf_tensors(self.checkpoint, self.header, self._tensors(name))
            return found if name in DENOISERS else restored(found)
        with safe_open(self.checkpoint, framework="pt") as file:
            return {tensor: file.get_tensor(tensor) for tensor in self._tensors(name)}

    def _converted(self, name: str, cls: Any, network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a part, by the names of diffusers or transformers."""
        if issubclass(cls, CLIPTextModel | CLIPTextModelWithProjection):
            return self._converted_text(name, network, weights)
        prefix = self._parts[name]
        bare = {tensor.removeprefix(prefix): value for tensor, value in weights.items()}
        if set(network.state_dict()) <= set(bare):
            return bare
        known = [entry for loadable, entry in SINGLE_FILE_LOADABLE_CLASSES.items() if loadable == cls.__name__]
        if not known:
            raise BadFiles(f"{name} cannot come from a single file")
        convert, config = known[0]["checkpoint_mapping_fn"], self.config(name)
        try:
            # The converters of UNets and VAEs look for the prefix themselves; those of transformers stumble over it.
            given = bare if name == "transformer" else dict(weights)
            found: dict[str, Tensor] = convert(checkpoint=given, config=config)
        except (KeyError, IndexError) as error:
            raise BadFiles(f"{name} lacks weights, such as {error}") from error
        return found

    def _converted_text(self, name: str, network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        if name == "text_encoder_2":
            prefix = self._parts[name]
            found: dict[str, Tensor] = single_file_utils.convert_open_clip_checkpoint(
                network, dict(weights), prefix=prefix
            )
        else:
            found = single_file_utils.convert_ldm_clip_checkpoint(dict(weights))
        if not hasattr(network, "text_model"):
            found = {tensor.removeprefix("text_model."): value for tensor, value in found.items()}
        return found


def _clip_tokenizer(cls: Any, config: dict[str, Any]) -> Any:
    """CLIP's tokenizer (https://github.com/openai/CLIP), from its merges, which are all that it was trained to."""
    lines = (PACKS / "clip" / "merges.txt").read_text(encoding="utf-8").splitlines()
    letters = [chr(code) for code in chain(range(33, 127), range(161, 173), range(174, 256))]
    letters += [chr(256 + index) for index in range(256 - len(letters))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(line.replace(" ", "") for line in lines), START, END]
    merges = [tuple(line.split(" ")) for line in lines]
    return cls(
        vocab={word: index for index, word in enumerate(words)},
        merges=merges,
        pad_token=config["pad_token"],
        model_max_length=config["model_max_length"],
    )
