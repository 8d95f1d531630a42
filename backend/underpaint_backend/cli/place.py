"""Where to listen, as words of the command line."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from underpaint_protocol.locations import DEFAULT_PORT

MAX_PORT = 65535


@dataclass(frozen=True)
class Place:
    """An address of this machine, or a name of one, and a port; port 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def is_loopback(self) -> bool:
        """Whether no other machine can come here."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--listen` and what it can be said by; they share one value, `listen`, and the last one said counts."""
    parser.add_argument(
        "--listen",
        type=_place,
        default=Place(),
        metavar="HOST:PORT",
        help=f"where (default: {Place()}, this machine alone); port 0 takes any free one",
    )
    parser.add_argument(
        "--port", dest="listen", action=_Replace, type=port, metavar="N", help="the port alone, of --listen's address"
    )
    # how a daemon was started before there was --listen; it may stand in the file that the plugin starts it with
    parser.add_argument("--address", dest="listen", action=_Replace, type=_host, help=argparse.SUPPRESS)


def port(word: str) -> int:
    """A port, 0 to 65535. Raises `ArgumentTypeError`."""
    if not (word.isascii() and word.isdigit() and len(word) < 6 and int(word) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_PORT}; it was {word}")
    return int(word)


def _place(word: str) -> Place:
    host, colon, number = word.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in host and bare == host):
        raise argparse.ArgumentTypeError(f"must be like 127.0.0.1:8738, box.example:8738 or [::1]:8738; it was {word}")
    return Place(bare.lower(), port(number))


def _host(word: str) -> str:
    return word.strip("[]").lower()


class _Replace(argparse.Action):
    """Changes one part of the place that was said so far."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | int | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        part = "port" if option_string == "--port" else "host"
        namespace.listen = dataclasses.replace(namespace.listen, **{part: values})
