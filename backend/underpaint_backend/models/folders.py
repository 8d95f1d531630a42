"""Folders of single files that other programs keep: checkpoints and LoRAs, as they are, where they are.

`underpaint models add-folder PATH` notes a folder in `folders.json` of the data folder. ComfyUI and A1111 are known by
their subfolders; of any other folder, all that lies below is looked at. What a file is says its header alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from underpaint_protocol.locations import data_folder
from underpaint_protocol.messages import Model

from . import extras
from .catalog import Entry, unforeseen
from .exceptions import ModelError
from .fitness import peak_bytes
from .gguf import ENDING as GGUF
from .gguf import GgufHeader, header_of, is_gguf
from .headers import PICKLES, BadFile, Header, printable
from .offers import Offer, pack_called, schedulers_of
from .plain_json import read_json
from .recognise import Recognised, parts_in, recognise
from .scheduler_configs import with_usable_schedulers
from .schedulers import NOTES

log = logging.getLogger(__name__)

LAYOUTS = (
    ("checkpoints", "diffusion_models", "unet", "loras"),  # ComfyUI
    ("Stable-diffusion", "Lora"),  # A1111 and Forge
)
"""Subfolders with what can be used. Others hold parts of models, which come with a sister model instead."""
MOST_FILES = 10_000
DEEPEST = 8
"""Levels of folders below the one that was added."""
SHARD = re.compile(r"-\d{5}-of-\d{5}$")
NEEDED = {
    "stable_diffusion": ("unet", "vae", "text_encoder"),
    "stable_diffusion_xl": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "flux1": ("transformer", "vae", "text_encoder", "text_encoder_2"),
    "flux2": ("transformer", "vae", "text_encoder"),
}
"""The parts of a model of each family."""
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


# The list of folders


def folders_file() -> Path:
    """Where the added folders are noted."""
    return data_folder() / "folders.json"


def folders() -> tuple[Path, ...]:
    """The folders that were added, in this order. A damaged list counts as none, with a line in the log."""
    try:
        found = read_json(folders_file())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", folders_file(), error)
        return ()
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        log.warning("%s must hold a list of folders", folders_file())
        return ()
    return tuple(Path(path) for path in found)


def loras_folder() -> tuple[Path, ...]:
    """The folder of LoRAs that everybody may have in the data folder; nothing where nobody made it."""
    folder = data_folder() / "loras"
    return (folder,) if os.path.isdir(folder) else ()


def add_folder(path: Path) -> Path:
    """Note a folder, and give it back as it was noted. To add one twice is to add it once.

    Raises `ModelError` if there is no such folder, and `OSError` if it may not be read.
    """
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        raise ModelError("invalid_field", detail=f"there is no folder {path}")
    with os.scandir(folder):
        pass
    if folder not in folders():
        _write((*folders(), folder))
    return folder


def remove_folder(path: Path) -> Path:
    """Forget a folder; its files stay.

    Raises `ModelError` if it was never added.
    """
    folder = path.expanduser().resolve()
    known = folders()
    if folder not in known:
        raise ModelError("invalid_field", detail=f"the folder {path} was not added")
    _write(other for other in known if other != folder)
    return folder


def _write(paths: Iterable[Path]) -> None:
    file = folders_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps([str(path) for path in paths], indent=2) + "\n", encoding="utf-8")
    os.replace(new, file)


# What they hold


def folder_entries(sister: Sister = lambda what, pack, parts: None, roots: Iterable[Path] | None = None) -> Contents:
    """What the added folders hold, or `roots`. Headers are read again only of files that changed.

    A model whose file lacks parts borrows them from the folder that `sister` names, and is "unfit" without one.
    """
    sound: dict[Path, _Sound] = {}
    broken: list[Broken] = []
    for path in _files(folders() if roots is None else roots):
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


def _files(roots: Iterable[Path]) -> list[Path]:
    """The files in these folders that may be weights, each once, in the order of their paths."""
    found: dict[Path, None] = {}
    for root in roots:
        for place in _places(root):
            for path in _below(place, 0, set()):
                if len(found) >= MOST_FILES:
                    log.warning("there are more than %d files in the folders; the rest is left out", MOST_FILES)
                    return sorted(found)
                found[path] = None
    return sorted(found)


def _places(root: Path) -> list[Path]:
    """The folders to look into: those that other programs have, or the root itself."""
    for base in (root, root / "models"):
        known = [base / name for layout in LAYOUTS for name in layout if os.path.isdir(base / name)]
        if known:
            return known
    return [root]


def _below(folder: Path, depth: int, seen: set[Path]) -> Iterator[Path]:
    """The files below a folder. Links are followed, for people keep models on other disks, but never in circles."""
    try:
        real = folder.resolve()
        if depth > DEEPEST or real in seen:
            return
        seen.add(real)
        children = sorted(folder.iterdir())
    except (OSError, ValueError) as error:  # which it is for a name that no folder can have
        log.warning("the folder %s cannot be read: %s", printable(str(folder), 300), getattr(error, "strerror", error))
        return
    if any(child.name in ("config.json", "model_index.json") for child in children):
        return  # a model in diffusers' layout, or a part of one
    for child in children:
        if child.name.startswith("."):
            continue
        if os.path.isdir(child):  # which, unlike the path's own method, minds no folder that may not be read
            yield from _below(child, depth + 1, seen)
        elif child.suffix.lower() in (".safetensors", GGUF, *PICKLES) and not SHARD.search(child.stem):
            yield child
