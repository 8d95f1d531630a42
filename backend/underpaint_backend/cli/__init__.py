"""The command `underpaint`. Each subcommand is one module here, imported only when it is used.

A subcommand's module has `add_arguments(parser)` and `run(arguments) -> int`, and raises `CommandError` for whatever
the person at the keyboard can mend.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "serve": "answer Krita and other clients",
    "token": "let others use this daemon, each with a token and an allowance of their own",
    "generate": "paint one picture from the command line",
    "krita": "open Krita with a daemon running",
    "models": "list the models on this machine",
    "doctor": "say what works on this machine and what does not",
}


class CommandError(Exception):
    """Something that the caller can mend; its text is all that is shown."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for bad input, or 1 if the work failed."""
    words = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(prog="underpaint", description="AI painting for Krita, as painters work.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=summary)
        if name in words[:1]:
            importlib.import_module(f"{__name__}.{name}").add_arguments(subparser)
    arguments = parser.parse_args(words)
    try:
        code: int = importlib.import_module(f"{__name__}.{arguments.command}").run(arguments)
    except CommandError as error:
        print(f"underpaint: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder of Underpaint's that cannot be made or written, or a full disk
        print(f"underpaint: {error.filename or 'its files'} cannot be used: {error.strerror or error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, EOFError):
        print(file=sys.stderr)
        return 130
    return code
