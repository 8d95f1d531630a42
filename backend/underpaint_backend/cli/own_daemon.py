"""This user's daemon, where a command profits from it but can do without."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterable

import psutil  # type: ignore[import-untyped]
from underpaint_protocol.messages import Model

from ..client import Refused, connect
from ..models.catalog import Entry
from ..models.fitness import Room, fitness
from .reach import own_address, own_token

PATIENCE = 3.0
"""Seconds that a daemon gets to answer."""
CARD = ("nvidia-smi", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits")


def models_there() -> tuple[Model, ...] | None:
    """The models as the running daemon knows them; None if none answers whose worker is ready.

    Because it was asked, it looks at its folders anew.
    """
    return asyncio.run(_ask())


def misfits(entries: Iterable[Entry]) -> dict[str, str]:
    """Why models do not fit into the memory of this machine, by id: as the daemon says, else as far as can be told.

    Without a daemon that is for one that is started without any choice about memory.
    """
    usable = {entry.model.id: entry for entry in entries if entry.model.state != "unfit"}
    there = models_there()
    if there is not None:
        return {model.id: model.detail for model in there if model.state == "unfit" and model.id in usable}
    room = _room()
    reasons = {name: fitness(entry.model, room, filed=entry.filed) for name, entry in usable.items()}
    return {name: reason for name, reason in reasons.items() if reason}


async def _ask() -> tuple[Model, ...] | None:
    try:
        async with (
            asyncio.timeout(PATIENCE),
            connect(own_address(), own_token(), client="underpaint models", reconnect=False) as client,
        ):
            return client.welcome.models if client.worker.state == "ready" else None
    except (OSError, ValueError, Refused):  # also if it takes too long
        return None


def _room() -> Room:
    """Where models can be: in RAM, and on a graphics card that its driver tells of."""
    ram = psutil.virtual_memory()
    free, total = _card()
    if not total:
        return Room(ram.available, ram.total, on_cpu=True)
    return Room(free, total, ram.available, ram.total)


def _card() -> tuple[int, int]:
    program = shutil.which(CARD[0])
    if program is None:
        return 0, 0
    try:
        told = subprocess.run([program, *CARD[1:]], capture_output=True, text=True, timeout=PATIENCE, check=True)
        free, total = (int(number) << 20 for number in told.stdout.splitlines()[0].split(","))
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return 0, 0
    return free, total
