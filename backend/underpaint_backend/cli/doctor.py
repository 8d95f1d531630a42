"""`underpaint doctor`: what works on this machine, a line each, with what to do about the rest."""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import Awaitable, Callable

from underpaint_protocol.locations import data_folder, token_file
from underpaint_protocol.messages import Worker

from ..client import Refused, connect
from ..models.catalog import default_roots, find_models
from ..server.hosts.local import LocalHost, LocalOptions
from .reach import in_words, own_address, own_token

PATIENCE = 120.0
"""Seconds that a worker may take to import its libraries, on a slow disk."""

Check = Callable[[], Awaitable[tuple[bool, str]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`doctor` has no options."""


def run(arguments: argparse.Namespace) -> int:
    """Run all checks; the exit code is 1 if one fails."""
    return asyncio.run(_examine())


async def _examine() -> int:
    checks: dict[str, Check] = {"models": _models, "worker": _worker, "daemon": _daemon, "Krita": _krita}
    print(f"Underpaint keeps its files in {data_folder()}.")
    failures = 0
    for name, check in checks.items():
        good, words = await check()
        failures += not good
        print(f"{'ok     ' if good else 'problem'}  {name}: {words}")
    return 1 if failures else 0


async def _models() -> tuple[bool, str]:
    names = [name for name, entry in find_models(default_roots()).items() if entry.model.state == "ready"]
    return bool(names), ", ".join(names) or "none. Install Underpaint again."


async def _worker() -> tuple[bool, str]:
    host = LocalHost(LocalOptions())
    states: asyncio.Queue[Worker] = asyncio.Queue()
    await host.start(states.put_nowait)
    try:
        worker = await asyncio.wait_for(states.get(), PATIENCE)
    except TimeoutError:
        return False, "did not start in two minutes. Look at what it printed above."
    finally:
        await host.close()
    return worker.state == "ready", f"runs on {worker.device}" if worker.state == "ready" else worker.detail


async def _daemon() -> tuple[bool, str]:
    url = own_address()
    try:
        async with connect(url, own_token()) as client:
            return True, f"{client.welcome.server} answers at {url}"
    except FileNotFoundError:
        return False, "never ran for this user. Start it with “underpaint serve”."
    except (OSError, ValueError) as error:
        return False, f"{token_file()} cannot be read: {error}"
    except Refused as refused:
        return False, in_words(refused)


async def _krita() -> tuple[bool, str]:
    path = shutil.which("krita")
    return path is not None, path or "not found. Install it from krita.org or with your package manager."
