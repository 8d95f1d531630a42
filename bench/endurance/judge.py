"""Was anything lost, ended twice or changed? Judged from the clients' own records and from the daemon's journal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .plan import Planned, may_be_cancelled
from .record import ENDS, Entry

EXPLAINED = ("worker_died",)
"""Codes of failures that the faults explain: a worker may be killed over one job again and again."""

Pictures = Mapping[tuple[str, int], set[str]]
"""By job and index: what their contents hash to."""


@dataclass
class Verdict:
    """What was found; each list names jobs as `client/job` with a few words."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    broke: list[str] = field(default_factory=list)
    """Clients that the daemon spoke nonsense to, or that broke themselves."""
    ends: Counter[str] = field(default_factory=Counter)
    """Jobs by how they ended."""
    seen: Counter[str] = field(default_factory=Counter)
    """Entries by what they are."""

    @property
    def total(self) -> int:
        """The sum of the counts."""
        return len(self.lost) + len(self.twice) + len(self.different) + len(self.broke)


def judge(verdict: Verdict, client: int, jobs: list[Planned], entries: Sequence[Entry], calm: Sequence[Entry]) -> None:
    """Add what became of one client's jobs. `calm` is its record of the undisturbed run."""
    pictures, undisturbed = pictures_of(entries), pictures_of(calm)
    ends: defaultdict[str, list[Entry]] = defaultdict(list)
    promises: defaultdict[str, set[tuple[object, ...]]] = defaultdict(set)
    for entry in entries:
        verdict.seen[_kind(entry)] += 1
        if entry.what == "broken":
            verdict.broke.append(f"{client}: {entry.detail}")
        if entry.what in ENDS:
            ends[entry.job].append(entry)
        elif entry.what == "accepted":
            promises[entry.job].add(_identity(entry))
    cancellable = may_be_cancelled(jobs)
    started_again = {entry.job for entry in entries if entry.what == "started" and entry.number > 1}
    for job in jobs:
        place = f"{client}/{job.id}"
        if len(promises[job.id]) > 1:
            verdict.lost.append(f"{place} was forgotten, and accepted anew")
        if not ends[job.id]:
            verdict.lost.append(place)
            continue
        verdict.ends[_end(ends[job.id][-1])] += 1
        if len(set(map(_identity, ends[job.id]))) > 1 or _told_twice(ends[job.id]):
            verdict.twice.append(f"{place}: {[(end.life, end.what, end.seq) for end in ends[job.id]]}")
        again = job.id in started_again
        reason = _difference(job, ends[job.id][-1], pictures, undisturbed, job.id in cancellable, again)
        if reason is not None:
            verdict.different.append(f"{place}: {reason}")


def pictures_of(entries: Iterable[Entry]) -> Pictures:
    """All pictures in a record."""
    pictures: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for entry in entries:
        if entry.what == "picture":
            pictures[entry.job, entry.number].add(entry.detail)
    return pictures


def _kind(entry: Entry) -> str:
    if entry.what == "started":
        return "started" if entry.number == 1 else "started again"
    return f"{entry.what} {entry.detail}" if entry.what in ("refused", "error") else entry.what


def _end(entry: Entry) -> str:
    return f"failed {entry.detail.partition(':')[0]}" if entry.what == "failed" else entry.what


def _identity(told: Entry) -> tuple[object, ...]:
    """What makes two messages the same one: a later life is told again what an earlier one did not acknowledge."""
    return (told.session, told.seq) if told.seq else ("by itself", told.life)


def _told_twice(ends: Sequence[Entry]) -> bool:
    """Whether one life of the client was told the end more than once."""
    return max(Counter(end.life for end in ends).values()) > 1


def _difference(
    job: Planned, end: Entry, pictures: Pictures, undisturbed: Pictures, cancellable: bool, again: bool
) -> str | None:
    """How the outcome differs from the undisturbed run, in words; None if it does not.

    `again` tells whether the job was started more than once: only then may it fail because its worker was killed.
    """
    for index in range(job.request.batch):
        expected, found = undisturbed.get((job.id, index), set()), pictures.get((job.id, index), set())
        if not found <= expected or len(expected) != 1:
            return f"picture {index} is another one"
        if end.what == "done" and not found:
            return f"picture {index} never came"
    if end.what == "cancelled" and not cancellable:
        return "it was cancelled, and nobody had asked for that"
    if end.what == "failed" and not (_end(end).removeprefix("failed ") in EXPLAINED and again):
        return end.detail
    return None
