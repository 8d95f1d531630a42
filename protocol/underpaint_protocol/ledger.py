"""The jobs of one client: those that it has to see through, and those that are over."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Tuple

from .downloads import Download
from .jobs import JobState
from .messages import Submit

REMEMBERED = 4096
"""Jobs that are over and are remembered, in case the daemon did not hear of it."""


@dataclass
class Job:
    """A job that has not been acknowledged. `submit` is None for one of an earlier life of this client."""

    submit: Optional[Submit] = None
    tiles: Mapping[bytes, bytes] = field(default_factory=dict)
    """What the request needs, by name."""
    state: JobState = field(default_factory=JobState)
    download: Download = field(default_factory=Download)
    query: Optional[int] = None
    """The number of the `have` that was not answered yet."""
    cancelled: bool = False
    doubt: bool = False
    """A cancel is on its way, so that `unknown_job` may be its answer rather than that to a fetch."""
    told: bool = False
    """The program was given the end."""
    rounds: int = 0
    """How often the server asked again for tiles after a submit."""
    settled: bool = False
    """It was given the end on an earlier connection: whatever the server says of it now is no news."""


class Ledger:
    """Jobs by their ids."""

    def __init__(self) -> None:
        self._open: Dict[str, Job] = {}
        self._over: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def get(self, name: Optional[str]) -> Optional[Job]:
        """The open job of this id."""
        return None if name is None else self._open.get(name)

    def add(self, name: str, job: Job) -> Job:
        """From here on the job is open."""
        self._open[name] = job
        return job

    def refuse(self, name: str) -> None:
        """The job never became one; its id is free again."""
        del self._open[name]

    def close(self, name: str) -> None:
        """The job is over, also for the server once it hears of it."""
        del self._open[name]
        self._over[name] = None
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    def is_over(self, name: str) -> bool:
        """Whether a job of this id was open and is not any more."""
        return name in self._over

    def items(self) -> List[Tuple[str, Job]]:
        """All open jobs in the order in which they were submitted, as they are now."""
        return list(self._open.items())

    def waiting_for(self, tile: bytes) -> List[Job]:
        """Those whose pictures need this tile."""
        return [job for job in self._open.values() if job.download.awaits(tile)]
