"""The command `underpaint`. Each subcommand is one module here, imported only when it is used.

A subcommand's module has `add_arguments(parser)` and `run(arguments) -> int`, and raises `CommandError` for whatever
the person at the keyboard can mend.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from underpaint_protocol import __version__
from underpaint_protocol.locations import data_folder

COMMANDS = {
    "serve": "answer Krita and other clients",
    "token": "let others use this daemon, each with a token and an allowance of their own",
    "generate": "paint one picture from the command line",
    "krita": "open Krita with a daemon running",
    "models": "list, fetch, add and remove what can be painted with",
    "doctor": "say what works on this machine and what does not",
}


EXAMPLES = """\
examples:
  underpaint serve                                        let Krita paint here
  underpaint generate "a red heart" --output heart.png    paint without Krita
  underpaint models                                       what there is to paint with
  underpaint models pull flux2-klein:4b                   fetch a model for real pictures
  underpaint doctor                                       when something does not work

“underpaint COMMAND --help” says more about each."""


class CommandError(Exception):
    """Something that the caller can mend; its text is all that is shown."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C; the text says what became of the work."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for bad input, 1 if the work failed, or 130 if it was interrupted.

    It is 141 if whoever reads what is printed went away, as `head` does.
    """
    words = list(sys.argv[1:] if words is None else words)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold what no encoding has
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 141
    except CommandError as error:
        print(f"underpaint: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder of Underpaint's that cannot be made or written, or a full disk
        print(f"underpaint: {_in_words(error)}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(f"\nunderpaint: {interrupted}", file=sys.stderr)
        return 130
    except (KeyboardInterrupt, EOFError):
        print(file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Refuses what it does not know by itself, with its own usage, and leaves that to no parser above."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def _in_words(error: OSError) -> str:
    where = error.filename or data_folder()  # whoever writes without room does not say where
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"there is no room left on the disk of {where}. Nothing was changed"
    return f"{where} cannot be used: {error.strerror or error}"


def _run(words: Sequence[str]) -> int:
    parser = _Parser(
        prog="underpaint",
        description="AI painting for Krita, as painters work.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"underpaint {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=summary)
        if name in words[:1]:
            importlib.import_module(f"{__name__}.{name}").add_arguments(subparser)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    code: int = importlib.import_module(f"{__name__}.{arguments.command}").run(arguments)
    return code
