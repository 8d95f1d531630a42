"""What an earlier daemon wrote down, made into sessions and jobs again.

Nothing here writes: what cannot be done is handed to the book, which forgets it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from underpaint_protocol.exceptions import OutOfOrder, ProtocolError
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Result, Submit, vocabulary

from .journal import Contents, EventRow, JobRow, SessionRow
from .pixels import MissingTile, Pixels
from .sessions import Entry, Job, Session

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """What the journal held, and what is to become of it."""

    sessions: dict[str, Session]
    waiting: list[Job]
    """Jobs that are to be done, in the order of their acceptance. Their tiles are held."""
    lost: list[Job]
    """Jobs that are in their sessions and cannot be done, because their tiles are gone."""
    unknown: list[JobRow]
    """Jobs that another version wrote down. No session has them."""


def restore(contents: Contents, pixels: Pixels, oldest: float) -> Restored:
    """Sessions, jobs and numbered messages as they were; the tiles of requests and results are held in `pixels`.

    No job counts as having ended more than `oldest` seconds ago, whatever the clock says.
    """
    sessions = {row.id: _session(row) for row in contents.sessions}
    unknown = [row for row in contents.jobs if not _restore_job(sessions[row.session], row, oldest)]
    for name, rows in groupby(contents.events, key=attrgetter("session")):
        _restore_log(sessions[name], rows, pixels)
    waiting: list[Job] = []
    lost: list[Job] = []
    for row in contents.jobs:
        job = sessions[row.session].jobs.get(row.job)
        if job is not None and not job.state.ended:
            (waiting if _is_ready_again(job, pixels) else lost).append(job)
    for job in waiting:
        older = job.session.jobs.get(job.submit.supersedes or "")
        if older is not None:
            older.cancelled = True
    return Restored(sessions, waiting, lost, unknown)


def _session(row: SessionRow) -> Session:
    session = Session(row.id, row.owner, row.client, row.reserved)
    session.stored, session.left_at = True, time.monotonic()
    return session


def _restore_job(session: Session, row: JobRow, oldest: float) -> bool:
    """Give the session its job again; False if this version does not understand it."""
    submit = _decoded(row.submit)
    if not isinstance(submit, Submit):
        log.error("the job %s was written down by another version and cannot be understood", row.job)
        return False
    job = session.jobs[row.job] = Job(session, submit, row.work, row.day, row.attempts)
    job.size = len(row.submit)
    if row.ended is not None:
        age = min(max(0.0, time.time() - row.ended), oldest)
        job.ended_at = time.monotonic() - age
    return True


def _restore_log(session: Session, rows: Iterable[EventRow], pixels: Pixels) -> None:
    entries = []
    for row in rows:
        message, job = _decoded(row.message), session.jobs.get(row.job)
        if message is None or job is None:
            continue
        try:
            job.state.apply(message)
        except OutOfOrder:
            log.error("what was written down of the job %s makes no sense: %s", row.job, type(message).__name__)
            continue
        if isinstance(message, Result):
            job.results.append(message)
            pixels.hold_again(job, message)
        entries.append(Entry(row.seq, row.job, message))
    session.restore(entries)


def _is_ready_again(job: Job, pixels: Pixels) -> bool:
    """Hold the tiles of a job that is still to be done; False if some are gone."""
    try:
        pixels.hold_request(job)
    except MissingTile:
        log.error("pixels of the job %s are lost; its client is asked for it anew", job.id)
        return False
    job.state.accepted = True
    job.state.attempt = job.attempts
    return True


def _decoded(data: bytes) -> Record | None:
    """A message that was written down; None if this version does not understand it."""
    try:
        return vocabulary.decode(data)
    except ProtocolError:
        return None
