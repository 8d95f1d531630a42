"""Jobs that a test gives to a host itself, with no server around."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from underpaint_backend.server.hosts import Host
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import Submit, Tile


async def one_by_one(tiles: Sequence[Tile]) -> AsyncIterator[Tile]:
    """Tiles as a host takes them."""
    for tile in tiles:
        yield tile


async def run(host: Host, submit: Submit, tiles: Sequence[Tile] = ()) -> list[Record]:
    """All that the host says of a job."""
    return [message async for message in host.run(submit, one_by_one(tiles))]
