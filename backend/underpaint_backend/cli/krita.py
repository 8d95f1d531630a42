"""`underpaint krita`: open Krita with a daemon running. The plugin has to be there already."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from underpaint_protocol.locations import DEFAULT_PORT, data_folder, token_file

from ..client import Refused, connect
from ..launch import launch
from . import CommandError
from .reach import own_address, own_token


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `krita`."""
    parser.add_argument("pictures", nargs="*", help="pictures to open")


def run(arguments: argparse.Namespace) -> int:
    """Open Krita and wait until it is closed; a daemon that was started for it ends with it."""
    krita = shutil.which("krita")
    if krita is None:
        raise CommandError("Krita was not found. Install it from krita.org or with your package manager")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the daemon ends, too
    with _daemon():
        # no `subprocess.run`: if this program is ended, Krita and what is painted in it must live on
        return subprocess.Popen([krita, *arguments.pictures], env=krita_environment(os.environ, krita)).wait()


def krita_environment(environment: Mapping[str, str], krita: str) -> dict[str, str]:
    """`environment` such that Krita finds the Python that belongs to it, which has PyQt.

    Krita asks `PATH` for a Python and takes its libraries; one of pyenv, conda or a virtual environment leads it
    astray. So the folder that Krita is in comes first.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    folder = str(Path(krita).resolve().parent)
    return {**kept, "PATH": folder + os.pathsep + environment.get("PATH", "")}


def is_running() -> bool:
    """Whether a Krita of this user runs, on whatever screen."""
    user = psutil.Process().username()
    processes = (process.info for process in psutil.process_iter(["name", "username", "status"]))
    return any(
        (info["name"] or "").lower().removesuffix(".exe") == "krita"
        and info["username"] == user
        and info["status"] != psutil.STATUS_ZOMBIE
        for info in processes
    )


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
    """Whether this user's daemon listens where it did last. Raises `CommandError` if its token cannot be read."""
    try:
        token = own_token()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise CommandError(f"{token_file()} cannot be read: {error}") from None
    try:
        async with connect(own_address(), token, client="underpaint krita"):
            return True
    except Refused as refused:
        return refused.error.code == "unknown_certificate"  # It has one of its own, about which the docker will ask.
