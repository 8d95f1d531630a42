"""Whether the files of a model are still what they were when they came: every byte is read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from .exceptions import DownloadCancelled
from .offers import Offer, Source
from .selection import needed
from .store import HASH, RemoteFile, Store, hashed


@dataclass(frozen=True)
class Finding:
    """A file with which something is wrong: "missing", "damaged", or "unknown" where nobody told its hash."""

    repository: str
    commit: str
    file: RemoteFile
    problem: str


def verify(offer: Offer, store: Store, on_file: Callable[[str, int], None], cancelled: Event) -> list[Finding]:
    """What is wrong with the files of `offer` in the hub's cache, as far as they are there.

    `on_file` hears of each file before it is read, with its size in bytes. Raises `DownloadCancelled`.
    """
    return [finding for source in offer.sources for finding in _check(source, store, on_file, cancelled)]


def discard(findings: list[Finding], store: Store) -> None:
    """Delete what is damaged, so that the next pull brings it again."""
    for finding in findings:
        if finding.problem == "damaged":
            path = store.snapshot(finding.repository, finding.commit) / finding.file.path
            target = path.resolve()
            path.unlink(missing_ok=True)
            if target.parent == (store.repository(finding.repository) / "blobs").resolve():
                target.unlink(missing_ok=True)


def _check(source: Source, store: Store, on_file: Callable[[str, int], None], cancelled: Event) -> Iterator[Finding]:
    def unless_cancelled(_: int) -> None:
        if cancelled.is_set():
            raise DownloadCancelled

    commit = store.likeliest(source)
    if commit is None:
        return
    snapshot = store.snapshot(source.repository, commit)
    for file in store.listing(source, commit) or _files_by_their_links(source, snapshot):
        path = snapshot / file.path
        if not path.is_file():
            yield Finding(source.repository, commit, file, "missing")
        elif not file.hash.strip("0"):
            yield Finding(source.repository, commit, file, "unknown")
        else:
            on_file(file.path, file.size)
            if not hashed(path, file, unless_cancelled).matches():
                yield Finding(source.repository, commit, file, "damaged")


def _files_by_their_links(source: Source, snapshot: Path) -> Iterator[RemoteFile]:
    """What another tool fetched: a link leads to a blob, whose name is its hash. All zeros where there is none."""
    paths = {path.relative_to(snapshot).as_posix(): path for path in snapshot.rglob("*") if not path.is_dir()}
    for name in needed(source, paths):
        target = paths[name].resolve()
        known = paths[name].is_symlink() and HASH.fullmatch(target.name)
        yield RemoteFile(name, target.stat().st_size if target.exists() else 0, target.name if known else "0" * 40)
