"""How often somebody may come with what is refused: a wrong token, `Origin`, `Host` or version."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

log = logging.getLogger(__name__)

ATTEMPTS = 20
"""Refusals of one address for one reason within `PERIOD` that are told at once. Behind a proxy all clients have one."""
PERIOD = 60.0
"""Seconds."""
ADDRESSES = 4096
"""Addresses that are remembered, with each reason; beyond that, the one whose period began first is forgotten."""
HOLD = 0.5
"""Seconds after which a refusal beyond `ATTEMPTS` is told: who comes one by one gets no further than two a second."""
MAX_HELD = 16
"""Refusals that are held at a time, whosever they are; those beyond are not told at all."""


class Attempts:
    """Counts refusals by address, and holds them up. A right token is neither counted nor held up by what others did.

    A token of 256 bits is not found by trying; this is to spare the daemon, and whoever reads its log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds and never goes back, whatever happens to the time of day."""
        self._clock = clock
        self._counted: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._held = 0

    def failed(self, address: str, reason: str) -> int:
        """Count one refusal of `address`; returns the seconds to wait if there were too many, else 0."""
        now = self._clock()
        key = _network(address), reason
        begun, count = self._counted.get(key, (now, 0))
        if now - begun >= PERIOD:
            begun, count = now, 0
        if count == 0:
            self._forget(key)
        self._counted[key] = begun, count + 1
        if count == ATTEMPTS:
            log.warning("%s is refused more than %d times in a minute: %s", key[0], ATTEMPTS, reason)
        return math.ceil(begun + PERIOD - now) if count >= ATTEMPTS else 0

    async def hold(self) -> bool:
        """Wait before a refusal is told; False, at once, if so many wait that it is not to be told."""
        if self._held >= MAX_HELD:
            return False
        self._held += 1
        try:
            await asyncio.sleep(HOLD)
        finally:
            self._held -= 1
        return True

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._counted)

    def _forget(self, key: tuple[str, str]) -> None:
        """Make room for a period of `key` that begins now and so goes to the end."""
        self._counted.pop(key, None)
        if len(self._counted) >= ADDRESSES:
            self._counted.popitem(last=False)


def _network(address: str) -> str:
    """What one machine cannot change at will: an IPv4 address, or the first half of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)
