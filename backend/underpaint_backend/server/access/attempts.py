"""How often somebody may come with a wrong token."""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

log = logging.getLogger(__name__)

ATTEMPTS = 20
"""Wrong tokens from one address within `PERIOD` that are looked at; behind a proxy all clients have one address."""
PERIOD = 60.0
"""Seconds."""
ADDRESSES = 4096
"""Addresses that are remembered; beyond that, the one whose period began first is forgotten."""


class Attempts:
    """Counts wrong tokens by address. A right one is never counted, nor held up by what others did."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds and never goes back, whatever happens to the time of day."""
        self._clock = clock
        self._counted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, address: str) -> int:
        """Count one wrong token from `address`; returns the seconds to wait if there were too many, else 0."""
        now = self._clock()
        key = _network(address)
        begun, count = self._counted.get(key, (now, 0))
        if now - begun >= PERIOD:
            begun, count = now, 0
        if count == 0:
            self._forget(key)
        self._counted[key] = begun, count + 1
        if count == ATTEMPTS:
            log.warning("wrong tokens come from %s, more than %d in a minute", key, ATTEMPTS)
        return math.ceil(begun + PERIOD - now) if count >= ATTEMPTS else 0

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._counted)

    def _forget(self, key: str) -> None:
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
