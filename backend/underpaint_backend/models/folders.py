"""Single files that other programs keep in folders: checkpoints and LoRAs, as they are, where they are.

What a file is says its header alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from underpaint_protocol.messages import Model

from . import extras
from .catalog import Entry, unforeseen
from .families import NEEDED
from .fitness import peak_bytes
from .folder_list import folders
from .gguf import GgufHeader, header_of, is_gguf
from .headers import BadFile, Header, printable
from .offers import Offer, pack_called, schedulers_of
from .plain_json import read_json
from .recognise import Recognised, parts_in, recognise
from .scheduler_configs import with_usable_schedulers
from .schedulers import NOTES
from .weight_files import MOST_FILES, weight_files

TEXT_WIDTHS = ("joint_attention_dim", "cross_attention_dim")
"""What the configuration of a denoiser calls the width of the text embeddings that it takes."""

Sister = Callable[[Recognised, Path, frozenset[str]], Path | None]
"""Who lends a model of this kind, with the configurations of this pack, the parts that its file lacks: a folder in
diffusers' layout, or nobody."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA: the name by which an artist chooses it, and where it is."""

    name: str
    path: Path
    what: Recognised


@dataclass(frozen=True)
class Broken:
    """A file that cannot be used, and why, for the artist."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Contents:
    """What the folders hold."""

    entries: tuple[Entry, ...] = ()
    loras: tuple[LoraFile, ...] = ()
    broken: tuple[Broken, ...] = ()

    def lora(self, name: str) -> LoraFile | None:
        """The LoRA of this name, with or without its ending."""
        return next((lora for lora in self.loras if lora.name == name.removesuffix(".safetensors")), None)


@dataclass(frozen=True)
class _Sound:
    """A file whose header is in order: `numbers` says how many weights each part has, `notes` are those of `NOTES`."""

    what: Recognised
    parts: frozenset[str]
    numbers: tuple[tuple[str, int], ...]
    notes: frozenset[str] = frozenset()


def folder_entries(sister: Sister = lambda what, pack, parts: None, roots: Iterable[Path] | None = None) -> Contents:
    """What the added folders hold, or `roots`. Headers are read again only of files that changed.

    A model whose file lacks parts borrows them from the folder that `sister` names, and is "unfit" without one.
    """
    sound: dict[Path, _Sound] = {}
    broken: list[Broken] = []
    for path in weight_files(folders() if roots is None else roots):
        try:
            status = path.stat()
            found = _looked_at(path, status.st_mtime_ns, status.st_size)
        except OSError as error:
            found = f"it cannot be read: {error.strerror}"
        if isinstance(found, str):
            broken.append(Broken(path, found))
        else:
            sound[path] = found
    models = {path: found for path, found in sound.items() if found.what.kind in ("checkpoint", "transformer")}
    loras = {path: found for path, found in sound.items() if found.what.kind == "lora"}
    entries = []
    for name, path in _named(models, lambda path: f"file/{_slug(path.stem)}"):
        pack = models[path].what.pack(path.stem)
        if pack is None:
            broken.append(Broken(path, f"it is {models[path].what.name} of a size for which there is no configuration"))
        else:
            try:
                entries.append(_entry(name, path, models[path], pack, sister))
            except Exception as error:  # one odd file hides no other
                broken.append(Broken(path, unforeseen(path, error)))
    named_loras = _named(loras, lambda path: printable(path.stem, 180))
    return Contents(
        tuple(entries),
        tuple(LoraFile(name, path, loras[path].what) for name, path in named_loras),
        tuple(sorted(broken, key=lambda each: each.path)),
    )


def sister_among(entries: Iterable[Entry]) -> Sister:
    """Who lends among the models that are ready, each in a folder of its own."""
    ready = [entry for entry in entries if entry.model.state == "ready" and entry.checkpoint is None]

    def sister(what: Recognised, pack: Path, parts: frozenset[str]) -> Path | None:
        for entry in ready:
            try:
                if entry.model.family == what.family and _lends(entry.folder, pack, parts):
                    return entry.folder
            except Exception as error:  # another may lend
                unforeseen(entry.folder, error)
        return None

    return sister


def _lends(folder: Path, pack: Path, parts: frozenset[str]) -> bool:
    """Whether a folder has these parts, and text encoders that speak to the denoiser of this pack."""
    if not all(any((folder / part).glob("*.safetensors")) for part in parts):
        return False
    own = _text_width(pack)
    return own is not None and _text_width(folder) == own


def _text_width(folder: Path) -> int | None:
    """The width of the text embeddings that the denoiser in a folder takes."""
    for path in (folder / "transformer" / "config.json", folder / "unet" / "config.json"):
        try:
            config = read_json(path)
            return next((config[key] for key in TEXT_WIDTHS if isinstance(config.get(key), int)), None)
        except (OSError, ValueError, AttributeError):
            continue
    return None


def file_entry(offer: Offer, sister: Sister) -> Entry:
    """The model of an entry of one's own that is a single file: its words are the entry's, and its weights the file's.

    Raises `ValueError` if the offer is of no file.
    """
    if offer.file is None:
        raise ValueError(f"{offer.model.id} is no file")
    try:
        return _filed(offer, offer.file, sister)
    except Exception as error:  # one odd entry hides no other
        return Entry(replace(offer.model, state="unfit", detail=unforeseen(offer.model.id, error)), offer.file.parent)


def _filed(offer: Offer, path: Path, sister: Sister) -> Entry:
    name = printable(path.name, 80)
    try:
        status = path.stat()
        found = _looked_at(path, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError) as error:  # which it is for a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        detail = f"its file {name} cannot be read: {reason}"
        return Entry(replace(offer.model, state="absent", detail=detail), path.parent)
    if isinstance(found, str):
        return Entry(replace(offer.model, state="unfit", detail=f"{name}: {found}"[:300]), path.parent)
    pack = offer.pack or found.what.pack(path.stem)
    is_model = found.what.kind in ("checkpoint", "transformer") and found.what.family == offer.model.family
    if pack is None or not is_model:
        detail = f"{name} is {found.what.name}, for which its entry has no configuration"
        return Entry(replace(offer.model, state="unfit", detail=detail), path.parent)
    return _placed(replace(offer.model, state="ready", memory=_memory(found)), path, found, pack, sister)


def file_table(name: str, path: Path, configuration: str | None = None) -> dict[str, Any]:
    """An entry of one's own for a single file, with the configuration called so instead of its own.

    Raises `ValueError` if it is no model that can be used, and `OSError`.
    """
    status, called = path.stat(), printable(path.name, 80)
    found = _looked_at(path, status.st_mtime_ns, status.st_size)
    if isinstance(found, str):
        raise ValueError(f"{called}: {found}")
    what = found.what
    if what.kind not in ("checkpoint", "transformer"):
        raise ValueError(f"{called} is no model: it is a {what.kind} for {what.name}")
    pack = what.pack(path.stem) if configuration is None else pack_called(configuration)
    if pack is None:
        raise ValueError(f"{called} is {what.name} of a size for which there is no configuration")
    defaults = _defaults(pack)
    if defaults["family"] != what.family:
        raise ValueError(f"{called} is {what.name}, and “{pack.name}” is for the family {defaults['family']}")
    table = {"id": name, "name": printable(path.stem, 120), **defaults, "file": str(path.resolve())}
    return table if configuration is None else {**table, "configuration": configuration}


def _defaults(pack: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(pack / "defaults.json")
    return found


def _entry(name: str, path: Path, found: _Sound, pack: Path, sister: Sister) -> Entry:
    defaults = _defaults(pack)
    model = Model(
        id=name,
        name=f"{printable(path.stem, 120)} ({found.what.called(path.stem).name})",
        family=defaults["family"],
        tasks=tuple(defaults["tasks"]),
        schedulers=schedulers_of(defaults["family"]),
        native_area=defaults["native_area"],
        size_multiple=defaults["size_multiple"],
        default_steps=defaults["default_steps"],
        default_guidance=defaults["default_guidance"],
        default_scheduler=defaults["default_scheduler"],
        max_references=defaults.get("max_references", 0),
        memory=_memory(found),
    )
    return _placed(model, path, found, pack, sister)


def _memory(found: _Sound) -> int:
    """Bytes that the file's weights take at the peak, in bf16."""
    numbers = {part: count / 1e9 for part, count in found.numbers}
    text = sum(count for part, count in numbers.items() if part.startswith("text_encoder"))
    denoiser = numbers.get("unet", 0.0) + numbers.get("transformer", 0.0)
    return peak_bytes(denoiser, text, numbers.get("vae", 0.0)).get("bf16", 0)


def _placed(model: Model, path: Path, found: _Sound, pack: Path, sister: Sister) -> Entry:
    """The entry of a model whose weights are in a file, and whose other parts are in a pack or in a sister."""
    lacking = frozenset(NEEDED[found.what.family]) - found.parts
    folder = sister(found.what, pack, lacking) if lacking else pack
    if folder is None:
        parts = ", ".join(sorted(lacking))
        detail = f"its file has no {parts}; fetch a model of the family {found.what.name}, which lends them"
        return Entry(replace(model, state="unfit", detail=detail), pack, path, pack=pack)
    words = extras.lacking(extras.GGUF) if is_gguf(path) else ""
    if words:
        detail = f"its weights are in a GGUF file, for which there is a library; {words}"
        return Entry(replace(model, state="unfit", detail=detail), folder, path, pack=pack)
    return Entry(with_usable_schedulers(model, pack / "scheduler", found.notes), folder, path, pack=pack)


def _named(files: Iterable[Path], name_of: Callable[[Path], str]) -> Iterator[tuple[str, Path]]:
    """The files by names that are theirs alone: where two would have the same, both get a mark of where they are."""
    paths = list(files)
    counts = Counter(name_of(path) for path in paths)
    for path in paths:
        name = name_of(path)
        mark = hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()
        yield (name if counts[name] == 1 else f"{name}-{mark}"), path


def _slug(stem: str) -> str:
    """A file's name as a part of a model's id."""
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-")[:80] or "model"


@lru_cache(maxsize=2 * MOST_FILES)
def _looked_at(path: Path, modified: int, size: int) -> _Sound | str:
    """What a file is, or why it cannot be used."""
    try:
        return _look(path)
    except BadFile as error:
        return str(error)
    except Exception as error:  # one odd file hides no other
        return unforeseen(path, error)


def _look(path: Path) -> _Sound | str:
    """The same. Raises `BadFile`, too."""
    header = header_of(path)
    what = recognise(header)
    if what.kind == "lora" and isinstance(header, GgufHeader):
        return "it is a LoRA in a GGUF file; choose one in safetensors"
    if what.kind in ("vae", "lora"):
        return _Sound(what, frozenset(), ())
    parts = parts_in(header)
    numbers = tuple((name, _numbers(header, prefix)) for name, prefix in parts.items())
    return _Sound(what, frozenset(parts), numbers, frozenset(NOTES & header.tensors.keys()))


def _numbers(header: Header, prefix: str) -> int:
    """How many weights there are; of quantised ones, how many would take as much in bf16."""
    if isinstance(header, GgufHeader):
        return sum(stored.size for name, stored in header.tensors.items() if name.startswith(prefix)) // 2
    total = 0
    for name, stored in header.tensors.items():
        if name.startswith(prefix):
            count = 1
            for side in stored.shape:
                count *= side
            total += count
    return total
