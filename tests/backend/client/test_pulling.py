"""Models that a program has its daemon fetch."""

from __future__ import annotations

import pytest
from underpaint_backend.client import Refused, connect
from underpaint_protocol.messages import Pulling

from tests.backend.client.serving import TOKEN, Served
from tests.protocol.reference import MODEL, MODEL_BYTES

BEGUN = Pulling(MODEL.id, 0, MODEL_BYTES)


async def test_a_model_is_fetched(server: Served) -> None:
    """The program hears how far it is, up to its end."""
    async with connect(server.url, TOKEN) as client:
        news = [pulling async for pulling in client.pull(MODEL.id)]
    assert news == [BEGUN, Pulling(MODEL.id, MODEL_BYTES, MODEL_BYTES)]


async def test_a_download_can_be_stopped(server: Served) -> None:
    """Its last news is that it was."""
    server.working = False
    async with connect(server.url, TOKEN) as client:
        pull = client.pull(MODEL.id)
        assert await anext(pull) == BEGUN
        client.stop_pull(MODEL.id)
        assert [pulling async for pulling in pull] == [Pulling(MODEL.id, 0, MODEL_BYTES, stopped=True)]


async def test_a_model_that_nobody_offers_is_refused(server: Served) -> None:
    """In the daemon's words."""
    async with connect(server.url, TOKEN) as client:
        with pytest.raises(Refused) as refusal:
            await anext(client.pull("nobodys"))
    assert refusal.value.error.code == "unknown_model"
