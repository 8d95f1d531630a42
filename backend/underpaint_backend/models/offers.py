"""What could be painted with: the models in `catalog.toml`, and one's own in `models.toml` of the data folder.

An offer says which repositories of the hub have a model's parts. Whether they are on this machine says `catalog.py`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from underpaint_protocol.exceptions import InvalidField
from underpaint_protocol.fields import MODEL_ID
from underpaint_protocol.locations import data_folder
from underpaint_protocol.messages import Model

from .families import NEEDED, SEEING, blindness, check_promises, lacking_in
from .fitness import peak_bytes
from .headers import short
from .recognise import PACKS
from .schedulers import OWN, names

CATALOG = Path(__file__).with_name("catalog.toml")
REPOSITORY = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./-]{0,99}", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
PATTERN = re.compile(r"[\w.*+-]+(/[\w.*+-]+)*", re.ASCII)

MOST_BILLIONS = 100_000
"""Parameters that a part of a model may be said to have: more than any machine holds."""

FLOW_FAMILIES = ("flux1", "flux2")


@dataclass(frozen=True)
class Source:
    """Files of one repository: the newest of the branch `revision`, or exactly a commit.

    `variant` is what the names of the wanted weights have before their ending, where there are such. `parts` are pairs
    of a part's name, as the engine knows it, and where in the repository it lies, if that is not a folder of this name.
    """

    repository: str
    files: tuple[str, ...]
    revision: str = "main"
    variant: str = ""
    parts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repository):
            raise ValueError(f"“{self.repository}” is no repository; one is written like owner/name")
        if not REVISION.fullmatch(self.revision):
            raise ValueError(f"“{self.revision}” is no revision")
        if not re.fullmatch(r"[a-z0-9]*", self.variant):
            raise ValueError(f"“{self.variant}” is no variant")
        if not self.files:
            raise ValueError(f"no files of {self.repository} are wanted")
        for pattern in (*self.files, *(path for pair in self.parts for path in pair)):
            if not PATTERN.fullmatch(pattern) or ".." in PurePosixPath(pattern).parts:
                raise ValueError(f"“{pattern}” is no file or folder of a repository")

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True)
class Offer:
    """A model that could be here: its description, and where its parts come from.

    One that lies in a `folder` of this machine, or in a single `file`, needs no sources. The configurations of what is
    in a file are those of the folder `pack`, or, without one, those that its header and its name tell. `memory` is in
    bytes by precision, at the peak.
    """

    model: Model
    sources: tuple[Source, ...] = ()
    folder: Path | None = None
    file: Path | None = None
    pack: Path | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    own: bool = False

    @property
    def local(self) -> Path | None:
        """Where it lies on this machine, if its entry says so."""
        return self.folder or self.file

    @property
    def urls(self) -> tuple[str, ...]:
        """Where its licence can be read and accepted."""
        return tuple(f"https://huggingface.co/{source.repository}" for source in self.sources)


def schedulers_of(family: Any) -> tuple[str, ...]:
    """The schedulers that suit the models of a family."""
    if family == "classic":
        return (OWN,)
    return names("flow" if family in FLOW_FAMILIES else "diffusion")


def own_file() -> Path:
    """The user's own entries."""
    return data_folder() / "models.toml"


_Read: TypeAlias = Offer | str
"""An offer, or what is wrong with what should be one."""

_read_files: dict[Path, tuple[tuple[int, int], tuple[_Read, ...]]] = {}


def offers() -> dict[str, Offer]:
    """All offers by id, in the order of the files; one's own come last, and replace those of the same id.

    Raises `ValueError` with the file's name if something in a file is wrong, and `OSError`.
    """
    return {offer.model.id: offer for offer in map(_sound, (*_read_in(CATALOG, own=False), *_read_in(own_file())))}


def sound_offers() -> tuple[dict[str, Offer], tuple[str, ...]]:
    """All offers by id, as `offers`, without those of one's own that are wrong; and what is wrong with these."""
    try:
        found = (*_read_in(CATALOG, own=False), *_read_in(own_file()))
    except OSError as error:
        found = (*_read_in(CATALOG, own=False), f"{own_file()} cannot be read: {error.strerror}")
    sound = {each.model.id: each for each in found if isinstance(each, Offer)}
    return sound, tuple(each for each in found if isinstance(each, str))


def _sound(read: _Read) -> Offer:
    if isinstance(read, str):
        raise ValueError(read)
    return read


def _read_in(path: Path, *, own: bool = True) -> tuple[_Read, ...]:
    """What a file offers, read anew only if it changed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    stamp = (status.st_mtime_ns, status.st_size)
    known = _read_files.get(path)
    if known is None or known[0] != stamp:
        known = _read_files[path] = (stamp, tuple(_each(path, own=own)))
    return known[1]


def read_offers(path: Path, *, own: bool = False) -> Iterator[Offer]:
    """The offers in the file `path`. Raises `ValueError` with its name if something in it is wrong, and `OSError`."""
    return map(_sound, _each(path, own=own))


def _each(path: Path, *, own: bool) -> Iterator[_Read]:
    """What the file `path` offers, one after the other. Raises `OSError`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("model", [])
        if not isinstance(tables, list):
            raise ValueError("its models must be headed [[model]]")
    except (ValueError, RecursionError) as error:
        yield f"{path}: {error}"
        return
    for table in tables:
        try:
            yield offer_of(table, own=own)
        except Exception as error:  # somebody wrote it by hand, and the other entries are in order
            yield f"{path}: {error}"


def offer_of(table: Mapping[str, Any], *, own: bool = False) -> Offer:
    """An offer from a table of the file.

    Raises `ValueError`, `TypeError` or `InvalidField` if something in it is wrong.
    """
    if not isinstance(table, dict):
        raise ValueError("a model must be a table")
    where = f"the model {short(table.get('id', '?'))}"
    try:
        check_id(table.get("id"))
        memory = _memory(table.get("parameters"))
        shown = {"schedulers": schedulers_of(table.get("family")), **table, "state": "absent"}
        shown["memory"] = memory.get("bf16", 0)
        model = Model.from_wire(shown)
        check_promises(model)
        if "folder" in table:
            return Offer(model, folder=_in_full(table["folder"], "folder"), memory=memory, own=own)
        if "file" in table:
            pack = pack_called(_text(table["configuration"])) if "configuration" in table else None
            _refuse(blindness(model, ()))
            return Offer(model, file=_in_full(table["file"], "file"), pack=pack, memory=memory, own=own)
        sources = (_source(table), *(_source(also) for also in table.get("also", [])))
        parts = _parts(sources)
        gap = lacking_in(model.family, parts)
        _refuse(f"its files have no {gap}" if gap else blindness(model, parts))
    except (ValueError, TypeError, InvalidField) as error:
        raise ValueError(f"{where}: {error}") from error
    return Offer(model, sources, memory=memory, own=own)


def _refuse(reason: str) -> None:
    if reason:
        raise ValueError(reason)


def _parts(sources: Iterable[Source]) -> frozenset[str]:
    """The parts that are among the files of sources, of those that a family may need."""
    folders = {pattern.partition("/")[0] for source in sources for pattern in source.files if "/" in pattern}
    named = {name for source in sources for name, _ in source.parts}
    asked = {*SEEING, *(part for parts in NEEDED.values() for part in parts)}
    return frozenset(part for part in asked if part in named or any(fnmatchcase(part, folder) for folder in folders))


def pack_called(name: str) -> Path:
    """The folder with the configurations called `name`: one of ours, or, written in full, any.

    Raises `ValueError` if there is none.
    """
    folder = PACKS / name if re.fullmatch(r"[a-z0-9-]+", name) else Path(name)
    if not folder.is_absolute() or not (folder / "defaults.json").is_file():
        known = sorted(path.parent.name for path in PACKS.glob("*/defaults.json"))
        raise ValueError(f"there is no configuration “{name}”; there are {', '.join(known)}")
    return folder


def _in_full(path: Any, what: str) -> Path:
    found = Path(_text(path))
    if not found.is_absolute():
        raise ValueError(f"its {what} must be written in full")
    return found


def check_id(name: Any) -> None:
    """Raises `ValueError` that says what an id looks like if `name` is none."""
    if not isinstance(name, str) or not re.fullmatch(MODEL_ID, name):
        raise ValueError(
            "its id must begin with a small letter or a digit and go on with these and . _ - / : "
            "up to 100 characters, as in my-model or sdxl:mine"
        )


def _source(table: Any) -> Source:
    if not isinstance(table, dict) or "repository" not in table:
        raise ValueError("it has no repository, no folder and no file")
    return Source(
        _text(table["repository"]),
        _texts(table.get("files", [])),
        _text(table.get("revision", "main")),
        _text(table.get("variant", "")),
        _pairs(table.get("parts", {})),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} must be text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} must be a list")
    return tuple(_text(item) for item in value)


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} must be a table")
    return tuple((_text(name), _text(path)) for name, path in value.items())


def _memory(parameters: Any) -> dict[str, int]:
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or not all(map(_is_billions, parameters.values())):
        raise ValueError("its parameters must be numbers: billions for denoiser, text and vae")
    return peak_bytes(**{part: float(parameters.get(part, 0)) for part in ("denoiser", "text", "vae")})


def _is_billions(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= MOST_BILLIONS
