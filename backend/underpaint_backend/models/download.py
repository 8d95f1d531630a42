"""A model on its way from the hub into the cache of this machine.

Every file goes on where it stopped, is checked against its hash, and gets its name only then. The list of what the
model needs is written down first, so that a model of which something is missing never counts as whole.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from threading import Event
from typing import BinaryIO, TypeVar

from .denials import denial_of
from .exceptions import DownloadCancelled, ModelError
from .hub import Busy, Denied, Hub, HubError, NotReached, NotThere, Settings, Unreachable
from .layout import gap_in
from .line import Line, cut_when
from .locks import locked
from .meter import Meter, Progress, in_gb
from .offers import Offer, Source
from .selection import lacking, needed
from .store import Hasher, RemoteFile, Store, hashed, partial_of

T = TypeVar("T")

CHUNK = 1 << 20
MARGIN = 256 << 20
"""Bytes that a download leaves free on the disk."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Patience:
    """How often in a row something is tried that brings no byte, how long the first pause is, and the longest."""

    tries: int = 5
    first: float = 1.0
    longest: float = 120.0


@dataclass(frozen=True)
class Plan:
    """The files that are needed of one repository at one commit."""

    source: Source
    commit: str
    files: tuple[RemoteFile, ...]


class WrongBytes(Exception):
    """What came is not what the hub had said."""


def free_bytes(folder: Path) -> int:
    """Room on the disk where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


class Download:
    """Fetches the model of `offer` into `store`; what is there already is not fetched again.

    With `update` the hub is asked for a newer commit of each branch although an older one is there, whole.
    """

    def __init__(
        self,
        offer: Offer,
        store: Store,
        settings: Settings,
        *,
        update: bool = False,
        free: Callable[[Path], int] = free_bytes,
        patience: Patience = Patience(),
    ) -> None:
        self.offer = offer
        self._store = store
        self._settings = settings
        self._update = update
        self._free = free
        self._patience = patience
        self._source: Source | None = None
        self._cancelled = Event()

    def missing(self) -> tuple[Source, ...]:
        """The sources of which something is not on this machine, or may be out of date. Asks nobody."""
        return tuple(
            source
            for source in self.offer.sources
            if (self._update and not source.pinned) or self._store.find(source) is None
        )

    def run(self, on_progress: Callable[[Progress], None], cancelled: Event) -> None:
        """Fetch what is missing; afterwards all of it is there.

        `on_progress` is called in this thread, at most about ten times a second. Raises `ModelError`, and
        `DownloadCancelled` soon after the event is set.
        """
        missing = self.missing()
        if not missing:
            return self._check_folder()
        if self._settings.offline:
            raise ModelError("working_offline", model=self.offer.model.id)
        self._cancelled = cancelled
        line = Line()
        hub = Hub(self._settings, cancelled, line)
        with cut_when(cancelled, line), self._in_words():
            plans = [self._plan(hub, source) for source in missing]
            meter = Meter(sum(file.size for plan in plans for file in plan.files), on_progress)
            self._check_room(plans)
            for plan in plans:
                self._source = plan.source
                for file in plan.files:
                    self._fetch(hub, plan, file, meter)
                if not plan.source.pinned:
                    self._store.keep_commit(plan.source.repository, plan.source.revision, plan.commit)
            meter.report()
        return None

    # What is needed

    def _check_folder(self) -> None:
        folder = self.offer.folder
        gap = gap_in(folder, self.offer.model.family) if folder is not None else ""
        if gap:
            raise self._gone("folder", f"{folder} {gap}")
        file = self.offer.file
        if file is not None and not file.is_file():
            raise self._gone("file", f"{file} is gone")

    def _plan(self, hub: Hub, source: Source) -> Plan:
        self._source = source
        name = source.repository
        commit = source.revision
        if not source.pinned:
            commit = self._patiently(lambda: hub.commit(name, source.revision))
        tree = self._patiently(lambda: hub.tree(name, commit))
        files = tuple(tree.files[path] for path in needed(source, tree.files))
        gaps = lacking(source, [file.path for file in files])
        if gaps:
            raise self._failed(f"{name} has no {gaps[0]} of a kind that can be used")
        self._store.keep_tree(name, commit, tree.files.values(), tree.blobs)
        return Plan(source, commit, tuple(sorted(files, key=lambda file: file.path == "model_index.json")))

    def _check_room(self, plans: list[Plan]) -> None:
        lengths = {
            file.hash: file.size - min(file.size, _size(partial_of(self._store.blob(plan.source.repository, file))))
            for plan in plans
            for file in plan.files
            if not self._is_here(plan, file) and self._store.twin(plan.source.repository, file) is None
        }
        wanted, free = sum(lengths.values()), self._free(self._store.root)
        if wanted and wanted + MARGIN > free:
            raise self._full(f"{in_gb(wanted)} are to come, and {in_gb(free)} are free")

    # One file

    def _fetch(self, hub: Hub, plan: Plan, file: RemoteFile, meter: Meter) -> None:
        """Bring one file here, unless it is, and link it into the snapshot."""
        name = plan.source.repository
        meter.begin(file.path)
        with locked(self._store.lock(name, file), self._cancelled):
            if self._is_here(plan, file):
                meter.skip(file.size)
            elif not self._borrow(name, file, meter):
                self._transfer(hub, plan, file, meter)
            self._store.link(name, plan.commit, file)

    def _is_here(self, plan: Plan, file: RemoteFile) -> bool:
        name = plan.source.repository
        path = self._store.snapshot(name, plan.commit) / file.path
        return self._store.has_blob(name, file) or _size(path) == file.size

    def _borrow(self, name: str, file: RemoteFile, meter: Meter) -> bool:
        """Take the same file from another repository, as a second name for the same bytes, where that is possible."""
        twin = self._store.twin(name, file)
        if twin is None or not hashed(twin, file, self._unless_cancelled).matches():
            return False
        blob = self._store.blob(name, file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(twin, blob)
        except OSError:
            return False
        meter.skip(file.size)
        return True

    def _transfer(self, hub: Hub, plan: Plan, file: RemoteFile, meter: Meter) -> None:
        blob = self._store.blob(plan.source.repository, file)
        partial = partial_of(blob)
        blob.parent.mkdir(parents=True, exist_ok=True)
        resumed = _size(partial) > 0
        try:
            self._complete(hub, plan, file, partial, meter)
        except WrongBytes as wrong:
            partial.unlink(missing_ok=True)
            if not resumed:
                raise self._wrong(str(wrong)) from None
            meter.skip(-meter.of_file)
            self._transfer(hub, plan, file, meter)  # What was begun earlier may have been damaged since.
            return
        os.replace(partial, blob)

    def _complete(self, hub: Hub, plan: Plan, file: RemoteFile, partial: Path, meter: Meter) -> None:
        """Append to `partial` until it is `file`. Raises `WrongBytes` if it never will be."""
        with _appending(partial) as out:
            hasher = hashed(partial, file, self._unless_cancelled)
            meter.skip(hasher.size)
            if hasher.size > file.size:
                raise WrongBytes(f"there are more bytes of {file.path} than it has")
            tries = 0
            while hasher.size < file.size:
                before = hasher.size
                try:
                    hasher = self._stream(hub, plan, file, hasher, out, meter)
                except (Unreachable, Busy) as error:
                    tries = 1 if hasher.size > before else tries + 1
                    self._pause(error, tries)
            out.flush()
            os.fsync(out.fileno())
        if not hasher.matches():
            raise WrongBytes(f"the bytes of {file.path} do not have the hash that they should have")

    def _stream(self, hub: Hub, plan: Plan, file: RemoteFile, hasher: Hasher, out: BinaryIO, meter: Meter) -> Hasher:
        """Read as much as one connection gives; `hasher`, or a new one if the file had to begin anew."""
        with hub.opened(plan.source.repository, plan.commit, file.path, hasher.size) as response:
            if _first_byte(response, file) == 0 and hasher.size:
                meter.skip(-hasher.size)
                hasher = Hasher(file)
                out.truncate(0)
            if _first_byte(response, file) != hasher.size:
                raise WrongBytes(f"another part of {file.path} came than was asked for")
            while hasher.size < file.size:
                data = _some_bytes(hub, response, file.size - hasher.size)
                out.write(data)
                hasher.update(data)
                meter.arrive(len(data))
        return hasher

    # What goes wrong

    def _patiently(self, ask: Callable[[], T]) -> T:
        tries = 0
        while True:
            try:
                return ask()
            except (Unreachable, Busy) as error:
                tries += 1
                self._pause(error, tries)

    def _pause(self, error: Unreachable | Busy, tries: int) -> None:
        """Wait before the next try; raises `error` if there is none."""
        wait = self._patience.first * 2.0 ** (tries - 1)
        if isinstance(error, Busy) and error.wait is not None:
            wait = max(error.wait, wait / 2)
        if tries >= self._patience.tries or wait > self._patience.longest:
            raise error
        if self._cancelled.wait(wait):
            raise DownloadCancelled

    def _unless_cancelled(self, _: int) -> None:
        if self._cancelled.is_set():
            raise DownloadCancelled

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except Denied as denied:
            raise self._denied(denied) from denied
        except NotThere as absent:
            raise self._failed(self._what_is_missing(absent)) from absent
        except NotReached as error:
            detail = f"{self._settings.endpoint} cannot be reached: {error}"
            raise ModelError("hub_unreachable", model=self.offer.model.id, detail=detail) from error
        except HubError as error:
            raise self._failed(f"{self._settings.endpoint} did not give it: {error}") from error
        except OSError as error:
            if error.errno in FULL:
                raise self._full(error.strerror or "the disk is full") from error
            raise self._failed(f"the cache of models cannot be written: {error.strerror or error}") from error

    def _denied(self, denied: Denied) -> ModelError:
        repository = self._source.repository if self._source else ""
        denial = denial_of(denied, repository, self._settings.token, gated=self.offer.model.gated)
        if not denial.page:
            return self._failed(denial.reason)
        return ModelError("model_gated", model=self.offer.model.id, detail=denial.reason, url=denial.page)

    def _what_is_missing(self, absent: NotThere) -> str:
        source = self._source
        assert source is not None
        if absent.code == "RevisionNotFound":
            return f"{source.repository} has no revision {source.revision}"
        if absent.code == "EntryNotFound":
            return f"{source.repository} lists a file that it does not have"
        return f"{self._settings.endpoint} has no repository {source.repository}"

    def _failed(self, detail: str) -> ModelError:
        return ModelError("download_failed", model=self.offer.model.id, detail=detail)

    def _gone(self, kind: str, gap: str) -> ModelError:
        mend = f"put it back, or say with “underpaint models add {self.offer.model.id} {kind.upper()}” where it is now"
        detail = f"it was added as a {kind} of this machine, and {gap}; {mend}"
        return ModelError("model_unfit", model=self.offer.model.id, detail=detail)

    def _wrong(self, detail: str) -> ModelError:
        return ModelError("download_wrong", model=self.offer.model.id, detail=detail)

    def _full(self, detail: str) -> ModelError:
        return ModelError("disk_full", model=self.offer.model.id, detail=detail)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _appending(path: Path) -> Iterator[BinaryIO]:
    """Open a file of this name, not one to which a link leads."""
    with suppress(OSError):
        if path.is_symlink():
            path.unlink()
    with path.open("ab") as stream:
        yield stream


def _some_bytes(hub: Hub, response: HTTPResponse, most: int) -> bytes:
    try:
        data = response.read1(min(CHUNK, most))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise hub.failure(error) from error
    if not data:
        raise hub.failure(ConnectionError("the connection was cut"))
    return data


def _first_byte(response: HTTPResponse, file: RemoteFile) -> int:
    """Where in the file an answer begins. Raises `WrongBytes` if the answer is about a file of another size."""
    start, total = 0, response.headers.get("Content-Length", "")
    if response.status == 206:
        ranges = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if ranges is None:
            raise WrongBytes(f"an answer about {file.path} does not say which part of it comes")
        start, total = int(ranges[1]), ranges[2]
    if total.isdigit() and int(total) != file.size:
        raise WrongBytes(f"{file.path} has {total} bytes, and {file.size} were announced")
    return start
