"""Models that a real daemon fetches from a stand-in for the hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from underpaint_backend.client import connect
from underpaint_backend.launch import Launched, launched
from underpaint_protocol.messages import Model

from tests.backend.models.hub import CHUNK, StandIn
from tests.backend.models.things import REPOSITORY, TABLE, UNET

OWN_MODEL = "[[model]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in TABLE.items())


@contextlib.contextmanager
def fetching_daemon(home: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launched]:
    """A daemon whose user added a model, which the stand-in for the hub has."""
    home.mkdir(exist_ok=True)
    (home / "models.toml").write_text(OWN_MODEL, encoding="utf-8")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(home / "hub"))
    with launched(home, "--threads", "1", "--drain-seconds", "0") as daemon:
        yield daemon


async def test_a_model_comes_from_the_hub(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: asked for by a client, fetched by the daemon over cut lines, told, and ready; nobody else is."""
    hub.cuts[UNET] = [1_000_000]
    with fetching_daemon(tmp_path, hub, monkeypatch) as daemon:
        async with asyncio.timeout(60), connect(daemon.url, daemon.token) as client:
            assert state_of(client.welcome.models) == "absent"
            news = [pulling async for pulling in client.pull("brush:small")]
            assert (news[-1].done, news[-1].error, news[-1].stopped) == (news[-1].total, None, False)
            assert state_of(client.welcome.models) == "ready"
    assert len(list((tmp_path / "hub").rglob("snapshots/*/unet/*.safetensors"))) == 1


async def test_a_daemon_that_is_killed_kindly_keeps_what_came(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in the middle of a file: the daemon is gone soon and well, and the next one asks only for the rest."""
    hub.hold_after = 2 * CHUNK
    with fetching_daemon(tmp_path, hub, monkeypatch) as daemon:
        async with asyncio.timeout(60), connect(daemon.url, daemon.token, reconnect=False) as client:
            pulling = client.pull("brush:small")
            while not hub.held.is_set():
                await anext(pulling)
            await pulling.aclose()
        begun = time.monotonic()
        assert await asyncio.to_thread(daemon.stop) == 0
        assert time.monotonic() - begun < 10
    hub.hold_after = None
    with fetching_daemon(tmp_path, hub, monkeypatch) as daemon:
        async with asyncio.timeout(60), connect(daemon.url, daemon.token) as client:
            assert state_of(client.welcome.models) == "absent"
            news = [pulling async for pulling in client.pull("brush:small")]
            assert news[-1].done == news[-1].total
    assert [asked.range for asked in hub.requests("cdn", "unet")] == [None, f"bytes={2 * CHUNK}-"]


async def test_a_gated_model_says_what_to_accept(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list says where before anybody asks, and the refusal says it again."""
    hub.repositories[REPOSITORY].gated = True
    with fetching_daemon(tmp_path, hub, monkeypatch) as daemon:
        (tmp_path / "models.toml").write_text(OWN_MODEL + "gated = true\n", encoding="utf-8")
        async with asyncio.timeout(60), connect(daemon.url, daemon.token) as client:
            while not next(model for model in client.welcome.models if model.id == "brush:small").gated:
                await asyncio.sleep(0.05)
            model = next(model for model in client.welcome.models if model.id == "brush:small")
            assert f"https://huggingface.co/{REPOSITORY}" in model.detail
            *_, end = [pulling async for pulling in client.pull("brush:small")]
            assert end.error is not None
            assert end.error.code == "model_gated"
            assert f"https://huggingface.co/{REPOSITORY}" in end.error.hint


def state_of(models: Sequence[Model]) -> str:
    return next(model.state for model in models if model.id == "brush:small")
