"""A server that holds to SPEC.md and paints nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.backend.client.serving import Served, served


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Served]:
    """The reference server on loopback."""
    async with asyncio.timeout(30), served() as running:
        yield running
