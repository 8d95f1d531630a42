"""The models that can be painted with on this machine, and those that could be.

A folder in diffusers' layout that carries an `underpaint.json` is a model:

    {"id": "primer-inpaint", "name": "Primer (built in)", "family": "stable_diffusion", "tasks": ["inpaint", ...],
     "native_area": 16384, "size_multiple": 8, "default_steps": 12, "default_guidance": 3.0,
     "default_scheduler": "ddim", "schedulers": ["ddim", ...] (optional), "licence": "MIT"}

The built-in models lie beside this file; the user's own in `models/` of Underpaint's data folder. Others are offered by
`catalog.toml` and the user's `models.toml`: each is "ready" if all its files are here, and "absent" otherwise. Single
files in the folders of other programs are models, too: `folders.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from underpaint_protocol.exceptions import InvalidField
from underpaint_protocol.locations import data_folder
from underpaint_protocol.messages import Model

from .extras import reason_against
from .families import SEEING, blindness, check_promises
from .gguf import is_gguf
from .headers import printable
from .layout import damage_in, gap_in
from .offers import Offer, Source, schedulers_of, sound_offers
from .plain_json import read_json
from .scheduler_configs import with_usable_schedulers
from .store import Store, cache_folder, folder_is_whole

log = logging.getLogger(__name__)

DESCRIPTION = "underpaint.json"
BUILT_IN = Path(__file__).parent
"""The folder with the models that come along. Their ids are theirs alone."""


@dataclass(frozen=True)
class Entry:
    """A model and where its files are, or would be.

    `folder` is in diffusers' layout. Where there is a `checkpoint`, a single file, parts that it holds come from there,
    and their configurations from `pack`; the folder has tokenizers, and what the file lacks. Parts in `elsewhere`, by
    their names, lie in other folders, or are single files.
    """

    model: Model
    folder: Path
    checkpoint: Path | None = None
    elsewhere: Mapping[str, Path] = field(default_factory=dict, hash=False)
    pack: Path | None = None

    @property
    def filed(self) -> bool:
        """Whether its weights are quantised in its file, and stay so whatever precision is chosen."""
        return self.checkpoint is not None and is_gguf(self.checkpoint)


def default_roots() -> tuple[Path, ...]:
    """The folders that are searched for models: the built-in ones and the user's own."""
    return (BUILT_IN, data_folder() / "models")


def find_models(roots: Iterable[Path]) -> dict[str, Entry]:
    """All models in `roots` and in added folders, and all that are offered, by id.

    What is damaged is left out, with a line in the log.

    Cheap enough to ask for each job: files are read again only if they changed.
    """
    roots = tuple(roots)
    found = {entry.model.id: entry for entry in _described(roots)}
    store = Store(cache_folder())
    offered = [offer for offer in _offered() if offer.model.id not in found]
    for offer in offered:
        if offer.file is None:
            found[offer.model.id] = locate(offer, store, roots)
    from .folders import file_entry, folder_entries, sister_among  # which knows entries, too

    sister = sister_among(list(found.values()))
    for offer in offered:
        if offer.file is not None:
            found[offer.model.id] = file_entry(offer, sister)
    for entry in folder_entries(sister).entries:
        found.setdefault(entry.model.id, entry)
    return found


def locate(offer: Offer, store: Store, roots: Iterable[Path] = ()) -> Entry:
    """Where an offered model is: in a folder of `roots` that has its repository's name, or in the hub's cache."""
    try:
        return _located(offer, store, tuple(roots))
    except Exception as error:  # one odd folder hides no other model
        place = offer.folder or store.root
        return Entry(replace(offer.model, state="unfit", detail=unforeseen(offer.model.id, error)), place)


def unforeseen(what: object, error: Exception) -> str:
    """What to say of a model or a file that nobody foresaw; the log has the error."""
    log.warning("%.300r cannot be looked at: %.300r", str(what), error)
    return "it is odd in a way that nobody foresaw, and cannot be looked at; the log says more"


def _located(offer: Offer, store: Store, roots: tuple[Path, ...]) -> Entry:
    if offer.folder is not None:
        gap = gap_in(offer.folder, offer.model.family)
        return _absent(offer, offer.folder, gap) if gap else _sound(_ready(offer, offer.folder, {}))
    found = [_folder_of(source, store, roots) for source in offer.sources]
    present = [folder for folder in found if folder is not None]
    if len(present) < len(found):
        return _absent(offer, store.repository(offer.sources[0].repository))
    elsewhere = {
        part: folder / path
        for source, folder in zip(offer.sources, present, strict=True)
        for part, path in source.parts
    }
    return _ready(offer, present[0], elsewhere)


def _folder_of(source: Source, store: Store, roots: tuple[Path, ...]) -> Path | None:
    owner, _, name = source.repository.partition("/")
    local = (root / folder for root in roots for folder in (name, f"{owner}/{name}", f"{owner}--{name}"))
    return next((folder for folder in local if folder_is_whole(folder, source)), None) or store.find(source)


def _is_model(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()


def _ready(offer: Offer, folder: Path, elsewhere: Mapping[str, Path]) -> Entry:
    model = _loadable(replace(offer.model, state="ready", download=0), folder, elsewhere)
    return Entry(model, folder, elsewhere=elsewhere)


def _loadable(model: Model, folder: Path, elsewhere: Mapping[str, Path]) -> Model:
    """The model as it can be used, "unfit" if a part of it is packed by a library that is not installed, or not there.

    Parts in `elsewhere` do not lie in `folder`.
    """
    try:
        reason = blindness(model, _present(folder, elsewhere)) or reason_against(folder)
        model = with_usable_schedulers(model, elsewhere.get("scheduler", folder / "scheduler"))
    except Exception as error:
        reason = unforeseen(folder, error)
    return replace(model, state="unfit", detail=reason) if reason else model


def _present(folder: Path, elsewhere: Mapping[str, Path]) -> list[str]:
    return [part for part in SEEING if part in elsewhere or (folder / part).exists()]


def _sound(entry: Entry) -> Entry:
    """A model in a folder that nobody compared with hashes: "unfit" if the headers of its files tell of damage."""
    damage = damage_in(entry.folder) if entry.model.state == "ready" else ""
    return replace(entry, model=replace(entry.model, state="unfit", detail=f"its {damage}")) if damage else entry


def _absent(offer: Offer, folder: Path, gap: str = "") -> Entry:
    detail = f"its folder {printable(folder.name, 80)} {printable(gap, 300)}" if gap else "its files have to be fetched"
    return Entry(replace(offer.model, state="absent", detail=detail), folder)


def _offered() -> Iterable[Offer]:
    found, wrong = sound_offers()
    for sentence in wrong:
        log.warning("a model of one's own is left out: %s", sentence)
    return found.values()


def _described(roots: Iterable[Path]) -> Iterator[Entry]:
    built_in: set[str] = set()
    for root in roots:
        for description in sorted(root.glob(f"*/{DESCRIPTION}")):
            try:
                if not description.resolve().is_relative_to(root.resolve()):
                    raise ValueError("it lies elsewhere; name that folder with --models instead of linking to it")
                if not _is_model(description.parent):
                    raise ValueError("it has no model_index.json")
                status = description.stat()
                model = _read(description, status.st_mtime_ns, status.st_size)
                if model.id in built_in and root != BUILT_IN:
                    raise ValueError(f"“{model.id}” comes with Underpaint; choose another id in its {DESCRIPTION}")
                if root == BUILT_IN:
                    built_in.add(model.id)
                yield _sound(Entry(_loadable(model, description.parent, {}), description.parent))
            except (OSError, ValueError, InvalidField) as error:
                log.warning("the model in %s is left out: %s", description.parent, error)
            except Exception as error:
                unforeseen(description.parent, error)


@lru_cache(maxsize=1024)
def _read(description: Path, modified: int, size: int) -> Model:
    wire = read_json(description)
    if not isinstance(wire, dict):
        raise ValueError(f"{description.name} must hold one object")
    model = Model.from_wire({"schedulers": schedulers_of(wire.get("family")), **wire})
    check_promises(model)
    return model
