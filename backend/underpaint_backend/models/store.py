"""The cache of the hub on this machine, as other tools lay it out, so that each model is here once for all of them.

    models--OWNER--NAME/blobs/HASH                  the files by their hash; HASH.incomplete while one is on its way
                        snapshots/COMMIT/PATH       links to them: what is loaded
                        trees/COMMIT.json           what the repository held at that commit
                        refs/BRANCH                 the commit of a branch
    .locks/models--OWNER--NAME/HASH.lock

A file's hash is its SHA-256 where the repository stores it as a large file, and Git's own elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import Any

from .offers import COMMIT, Source
from .plain_json import read_json
from .selection import INDEX, WEIGHTS, needed, safe_path

HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
TREE_FORMAT = 1
CHUNK = 1 << 20
TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "tekken.json", "preprocessor_config.json")
VERSIONS = ("scheduler_config.json", *TOKENIZERS)
"""Files of which a part without weights has at least one."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its repository lists it: its path in there, its size in bytes, and the hash of what it holds."""

    path: str
    size: int
    hash: str

    def __post_init__(self) -> None:
        if not safe_path(self.path):
            raise ValueError(f"the repository has a file with the name {self.path[:80]!r}, which no file may have")
        if not HASH.fullmatch(self.hash) or self.size < 0:
            raise ValueError(f"the repository does not say what {self.path} holds")


class Hasher:
    """Takes the bytes of one file and says whether they are what they should be."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.size = 0
        self._digest = hashlib.sha256() if len(file.hash) == 64 else hashlib.sha1(b"blob %d\0" % file.size)

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        self._digest.update(data)
        self.size += len(data)

    def matches(self) -> bool:
        """Whether this was the file, whole and undamaged."""
        return self.size == self._file.size and self._digest.hexdigest() == self._file.hash


def partial_of(blob: Path) -> Path:
    """Where the bytes of a blob are kept while it is on its way."""
    return blob.with_name(f"{blob.name}.incomplete")


def hashed(path: Path, file: RemoteFile, on_bytes: Callable[[int], None]) -> Hasher:
    """The bytes of `path`, as far as they go. `on_bytes` hears of each stretch, and may raise to stop."""
    hasher = Hasher(file)
    with path.open("rb", buffering=0) as stream:
        while data := stream.read(CHUNK):
            hasher.update(data)
            on_bytes(len(data))
    return hasher


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of the hub's cache, where other tools look, too."""
    override = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    return Path(override).expanduser() if override else hub_home(environment) / "hub"


def hub_home(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of the hub's tools, with the cache and the token."""
    home = environment.get("HF_HOME")
    if home:
        return Path(home).expanduser()
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"


class Store:
    """The hub's cache in the folder `root`. Nothing here asks the network."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def repository(self, name: str) -> Path:
        """The folder of a repository; it need not exist."""
        return self.root / f"models--{name.replace('/', '--')}"

    def snapshot(self, name: str, commit: str) -> Path:
        """The folder of a repository as it was at a commit."""
        return self.repository(name) / "snapshots" / commit

    def blob(self, name: str, file: RemoteFile) -> Path:
        """Where the bytes of a file belong."""
        return self.repository(name) / "blobs" / file.hash

    def lock(self, name: str, file: RemoteFile) -> Path:
        """Where whoever fetches a file takes a lock."""
        return self.root / ".locks" / self.repository(name).name / f"{file.hash}.lock"

    # What is here

    def find(self, source: Source) -> Path | None:
        """The snapshot that has all that `source` needs; None if there is none."""
        for commit in self._commits(source):
            snapshot = self.snapshot(source.repository, commit)
            if snapshot.is_dir() and self.is_whole(source, commit):
                return snapshot
        return None

    def likeliest(self, source: Source) -> str | None:
        """The commit of which there is most likely something here, whole or not; None if there is nothing."""
        commits = [commit for commit in self._commits(source) if self.snapshot(source.repository, commit).is_dir()]
        whole = (commit for commit in commits if self.is_whole(source, commit))
        return next(whole, commits[0] if commits else None)

    def fetched(self, source: Source) -> list[str]:
        """The commits of its repository that were fetched from here, and the one that `source` is pinned to.

        Others are what other programs fetched.
        """
        known = {path.stem for path in self._tree(source.repository, "*").parent.glob("*.json")}
        pinned = {source.revision} if source.pinned else set()
        return sorted(commit for commit in known | pinned if COMMIT.fullmatch(commit))

    def paths(self, name: str, commit: str) -> list[str]:
        """The files in a snapshot."""
        snapshot = self.snapshot(name, commit)
        return [path.relative_to(snapshot).as_posix() for path in _files_below(snapshot)]

    def is_whole(self, source: Source, commit: str) -> bool:
        """Whether a snapshot has every file that `source` needs: by its list, or by looking where there is none."""
        snapshot = self.snapshot(source.repository, commit)
        files = self.listing(source, commit)
        if files is None:
            return folder_is_whole(snapshot, source)
        return bool(files) and all(_has(snapshot / file.path, file.size) for file in files)

    def listing(self, source: Source, commit: str) -> tuple[RemoteFile, ...] | None:
        """The files that `source` needs at a commit, as once told by the hub; None if nobody asked."""
        path = self._tree(source.repository, commit)
        try:
            status = path.stat()
        except OSError:
            return None
        tree = _read_tree(path, status.st_mtime_ns, status.st_size)
        return None if tree is None else tuple(tree[path] for path in needed(source, tree))

    def has_blob(self, name: str, file: RemoteFile) -> bool:
        """Whether the bytes of a file are here, under its hash or, where links are impossible, in a snapshot."""
        return _has(self.blob(name, file), file.size)

    def twin(self, name: str, file: RemoteFile) -> Path | None:
        """The same bytes in another repository: models share text encoders and VAEs."""
        if len(file.hash) != 64:
            return None
        own = self.blob(name, file)
        found = (path for path in self.root.glob(f"models--*/blobs/{file.hash}") if path != own)
        return next((path for path in found if path.is_file() and _has(path, file.size)), None)

    # What is written

    def keep_tree(self, name: str, commit: str, tree: Iterable[RemoteFile], blobs: Mapping[str, str]) -> None:
        """Write down what a repository holds at a commit; `blobs` are Git's hashes by path."""
        files: dict[str, dict[str, Any]] = {}
        for file in tree:
            entry = files[file.path] = {"size": file.size, "blob_id": blobs[file.path]}
            if len(file.hash) == 64:
                entry.update(lfs_sha256=file.hash, lfs_size=file.size)
        _write(self._tree(name, commit), json.dumps({"format_version": TREE_FORMAT, "files": files}, indent=2))

    def keep_commit(self, name: str, branch: str, commit: str) -> None:
        """Write down which commit a branch is at."""
        _write(self.repository(name) / "refs" / branch, commit)

    def link(self, name: str, commit: str, file: RemoteFile) -> None:
        """Put a file that is in the blobs into a snapshot. Where links are impossible, it moves there."""
        blob, path = self.blob(name, file), self.snapshot(name, commit) / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if _has(path, file.size) and not blob.exists():
            return
        with suppress(FileNotFoundError):
            path.unlink()
        try:
            path.symlink_to(os.path.relpath(blob, path.parent))
        except OSError:  # Windows asks for a right that artists seldom have
            if self._is_linked(name, blob):
                shutil.copyfile(blob, path)
            else:
                os.replace(blob, path)

    # What is removed

    def remove(self, source: Source, commit: str, keep: Iterable[str]) -> int:
        """Take what `source` needs out of a snapshot, but for the paths in `keep`; the number of bytes given back.

        Bytes to which another snapshot links stay.
        """
        name = source.repository
        snapshot, kept = self.snapshot(name, commit), set(keep)
        freed, blobs = 0, {self.blob(name, file) for file in self.listing(source, commit) or ()}
        for inside in set(needed(source, self.paths(name, commit))) - kept:
            path = snapshot / inside
            if path.is_symlink():
                blobs.add(path.resolve())
            else:
                freed += path.stat().st_size
            path.unlink()
        _drop_empty(snapshot)
        if not snapshot.exists():
            self._forget(name, commit)
        return freed + self._drop_unused(name, blobs)

    def _forget(self, name: str, commit: str) -> None:
        folder = self.repository(name)
        self._tree(name, commit).unlink(missing_ok=True)
        for ref in list(_files_below(folder / "refs")):
            if _text(ref) == commit:
                ref.unlink()

    def _drop_unused(self, name: str, blobs: Iterable[Path]) -> int:
        """Delete those of `blobs` to which no snapshot links, and what of them was on its way."""
        folder = self.repository(name).resolve()
        used = {path.resolve() for path in _files_below(folder / "snapshots")}
        freed = 0
        for blob in {folder / "blobs" / blob.name for blob in blobs} - used:
            for path in (blob, partial_of(blob)):
                with suppress(FileNotFoundError):
                    freed += path.stat().st_size if path.stat().st_nlink == 1 else 0
                    path.unlink()
        if not used and folder.exists():
            shutil.rmtree(folder)
        return freed

    def _is_linked(self, name: str, blob: Path) -> bool:
        snapshots = self.repository(name) / "snapshots"
        return any(path.is_symlink() and path.resolve() == blob.resolve() for path in _files_below(snapshots))

    def _tree(self, name: str, commit: str) -> Path:
        return self.repository(name) / "trees" / f"{commit}.json"

    def _commits(self, source: Source) -> Iterator[str]:
        """Commits that would do, the likeliest first."""
        if source.pinned:
            yield source.revision
            return
        current = _text(self.repository(source.repository) / "refs" / source.revision)
        if COMMIT.fullmatch(current):
            yield current
        snapshots = (path for path in self.snapshot(source.repository, "").glob("*") if COMMIT.fullmatch(path.name))
        for path in sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True):
            if path.name != current:
                yield path.name


def folder_is_whole(folder: Path, source: Source) -> bool:
    """Whether a folder has what `source` needs, as far as can be told without a list: no part lacks weights."""
    for pattern in source.files:
        path = folder / pattern
        if path.name != "*":
            if not path.is_file():
                return False
        elif not part_is_whole(path.parent):
            return False
    return True


def part_is_whole(folder: Path) -> bool:
    """Whether a part of a model, as a text encoder or a tokenizer, has its weights, or whatever it has instead."""
    try:
        # A dangling link is none, and an empty file is what is left of a copy on a full disk.
        names = {entry.name for entry in os.scandir(folder) if entry.is_file() and entry.stat().st_size}
    except OSError:
        return False
    indexes = [name for name in names if INDEX.fullmatch(name)]
    if indexes:
        return all(_shards(folder / index) <= names for index in indexes)
    weights = {name for name in names if name.endswith(WEIGHTS)}
    if "config.json" in names:
        return bool(weights) and _numbered(weights) <= weights
    return any(name in names for name in VERSIONS)


def _shards(index: Path) -> set[str]:
    status = index.stat()
    return set(_read_index(index, status.st_mtime_ns, status.st_size))


def _numbered(names: set[str]) -> set[str]:
    """All names of a series of which `names` has some, as model-00001-of-00003.safetensors."""
    found = [re.fullmatch(r"(.*-)(\d{5})-of-(\d{5})(\..+)", name) for name in names]
    return {
        f"{match[1]}{number:05}-of-{match[3]}{match[4]}"
        for match in found
        if match
        for number in range(1, min(int(match[3]), 1000) + 1)
    }


@lru_cache(maxsize=256)
def _read_index(path: Path, modified: int, size: int) -> tuple[str, ...]:
    """The files that an index of weights names; something that is nowhere if it is damaged."""
    try:
        names = read_json(path)["weight_map"].values()
        return tuple({str(name) for name in names})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ("(the index is damaged)",)


@lru_cache(maxsize=256)
def _read_tree(path: Path, modified: int, size: int) -> Mapping[str, RemoteFile] | None:
    """A listing that this program or another tool wrote; None if it is damaged or of a later form."""
    try:
        tree = read_json(path)
        if tree["format_version"] != TREE_FORMAT:
            return None
        return {name: _from_tree(name, entry) for name, entry in tree["files"].items() if safe_path(name)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _from_tree(name: str, entry: Mapping[str, Any]) -> RemoteFile:
    return RemoteFile(name, int(entry["size"]), str(entry.get("lfs_sha256") or entry["blob_id"]))


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _write(path: Path, content: str) -> None:
    """Replace a file as a whole, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}.new")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)


def _drop_empty(folder: Path) -> None:
    for parent, _, _ in list(os.walk(folder, topdown=False)):
        with suppress(OSError):
            Path(parent).rmdir()
