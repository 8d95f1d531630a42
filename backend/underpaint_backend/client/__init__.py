"""A client of the daemon for programs that use asyncio: the command line, the demonstration and everyone's scripts.

async with connect() as client:
    async for event in client.generate(request, tiles):
        ...
"""

from .client import Client, connect
from .dialing import Refused

__all__ = ["Client", "Refused", "connect"]
