"""`underpaint krita`: open Krita with a daemon running. The plugin has to be there already."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Iterator

from underpaint_protocol.locations import DEFAULT_PORT, data_folder, token_file

from ..client import Refused, connect
from ..launch import launch
from . import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `krita`."""
    parser.add_argument("pictures", nargs="*", help="pictures to open")


def run(arguments: argparse.Namespace) -> int:
    """Open Krita and wait until it is closed; a daemon that was started for it ends with it."""
    krita = shutil.which("krita")
    if krita is None:
        raise CommandError("Krita was not found. Install it from krita.org or with your package manager")
    with _daemon():
        return subprocess.run([krita, *arguments.pictures]).returncode


@contextlib.contextmanager
def _daemon() -> Iterator[None]:
    if asyncio.run(_answers()):
        print("The daemon runs already.", flush=True)
        yield
        return
    try:
        daemon = launch(data_folder(), port=DEFAULT_PORT)
    except RuntimeError as error:
        raise CommandError(f"the daemon did not start: {error}") from None
    print(f"Underpaint listens on {daemon.url}; its log is {daemon.log}.", flush=True)
    try:
        yield
    finally:
        daemon.stop()


async def _answers() -> bool:
    """Whether this user's daemon listens at its usual place."""
    try:
        token = token_file().read_text(encoding="ascii").strip()
        async with connect(f"ws://127.0.0.1:{DEFAULT_PORT}", token, client="underpaint krita"):
            return True
    except (OSError, Refused):
        return False
