"""`underpaint serve`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import json
import logging
import ssl
import sys
from pathlib import Path

from underpaint_protocol.locations import DEFAULT_PORT, launch_file, token_file

from ..server.daemon import Daemon, Options, serve_until_signal
from ..server.handshake import Gate
from ..server.hosts.local import LocalHost, LocalOptions
from ..server.token import load_token
from . import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serve`."""
    parser.add_argument("--address", default="127.0.0.1", help="where to listen (default: this machine alone)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="0 takes any free one (default: %(default)s)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, needed to listen to other machines")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the certificate")
    parser.add_argument("--insecure-no-tls", action="store_true", help="listen to other machines without encryption")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name of this machine")
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN", help="a web page's origin")
    parser.add_argument("--device", default="auto", help="cpu, cuda:0, mps, ... (default: the best there is)")
    parser.add_argument("--threads", type=int, help="threads for computing on the CPU")
    parser.add_argument(
        "--models", action="append", default=[], type=Path, metavar="FOLDER", help="look for models here too"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")


def _port(word: str) -> int:
    if not word.isdigit() or int(word) > 65535:
        raise argparse.ArgumentTypeError(f"must be from 0 to 65535; it was {word}")
    return int(word)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("websockets").setLevel(logging.WARNING)
    hosts = frozenset(name.lower() for name in arguments.allow_host)
    gate = Gate(_token(), hosts, frozenset(arguments.allow_origin))
    options = Options(gate, arguments.address, arguments.port, _tls(arguments))
    asyncio.run(_serve(arguments, options))
    return 0


async def _serve(arguments: argparse.Namespace, options: Options) -> None:
    def listening(url: str) -> None:
        _remember(arguments, url)
        print(f"Underpaint listens on {url}", flush=True)

    host = LocalHost(LocalOptions(arguments.device, arguments.threads, arguments.models))
    try:
        await serve_until_signal(Daemon(host, options), listening)
    except OSError as error:
        place = f"{options.address}:{options.port}"
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"cannot listen on {place}: something does already. Use it, or choose --port") from None
        raise CommandError(f"cannot listen on {place}: {error.strerror or error}") from None


def _token() -> str:
    try:
        return load_token(token_file())
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from None


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """The encryption that the address needs."""
    if arguments.tls_cert is None:
        if not _is_loopback(arguments.address) and not arguments.insecure_no_tls:
            raise CommandError(
                f"{arguments.address} can be reached by other machines, so --tls-cert and --tls-key are needed "
                "(or, on a network that you trust, --insecure-no-tls)"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise CommandError(f"cannot use the certificate {arguments.tls_cert}: {error}") from None
    return context


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _remember(arguments: argparse.Namespace, url: str) -> None:
    """Write down how this daemon was started, so that the plugin's button can start it again."""
    words = ["serve", "--address", arguments.address, "--port", url.rpartition(":")[2], "--device", arguments.device]
    if arguments.threads is not None:
        words += ["--threads", str(arguments.threads)]
    for folder in arguments.models:
        words += ["--models", str(folder.absolute())]
    for name, file in (("--tls-cert", arguments.tls_cert), ("--tls-key", arguments.tls_key)):
        words += [name, str(file.absolute())] if file else []
    words += ["--insecure-no-tls"] if arguments.insecure_no_tls else []
    for host in arguments.allow_host:
        words += ["--allow-host", host]
    command = [sys.executable, "-P", "-m", "underpaint_backend", *words]
    launch_file().write_text(json.dumps(command), encoding="utf-8")
