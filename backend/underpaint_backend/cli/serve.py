"""`underpaint serve`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import json
import logging
import os
import re
import ssl
import sys
from pathlib import Path

from underpaint_protocol.locations import data_folder, launch_file, token_file

from ..file_lock import TAKEN
from ..models import extras
from ..server.access.handshake import Gate
from ..server.access.tls import BadCertificate, fingerprint, server_context
from ..server.access.tokens import Tokens
from ..server.daemon import Daemon, Options, serve_until_signal
from ..server.hosts.local import LocalHost, LocalOptions
from ..server.journal.claim import claim
from ..worker.interface import OFFLOADS, PACKED, PRECISIONS
from . import CommandError, numbers, place

log = logging.getLogger(__name__)

ORIGIN = r"[a-z][a-z0-9+.-]*://[^\s/?#*@A-Z]+"
"""RFC 6454, as it stands in the header: scheme, host and port, without a path."""
ALWAYS_THERE = ("auto", "cpu")
"""Devices that need not be tried out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serve`."""
    place.add_arguments(parser)
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, needed to listen to other machines")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the certificate, if that does not hold it")
    parser.add_argument("--insecure-no-tls", action="store_true", help="listen to other machines without encryption")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name of this machine")
    parser.add_argument(
        "--allow-origin", action="append", type=_origin, default=[], metavar="ORIGIN", help="a web page's origin"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda:0, mps, ... (default: the best there is)")
    parser.add_argument("--threads", type=numbers.threads, help="threads for computing on the CPU")
    parser.add_argument(
        "--models", action="append", default=[], type=Path, metavar="FOLDER", help="look for models here too"
    )
    memory = parser.add_argument_group("memory (default: what suits the memory that is there)")
    memory.add_argument("--memory-gib", type=numbers.amount, metavar="N", help="for models on the device, at most")
    memory.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the models' numbers")
    memory.add_argument(
        "--offload", choices=OFFLOADS, default="auto", help="group fetches each layer as it is needed: slow, but small"
    )
    keeping = parser.add_argument_group("what is kept")
    keeping.add_argument(
        "--keep-hours", type=numbers.above_zero, default=24, metavar="N", help="for pictures nobody came for"
    )
    keeping.add_argument("--keep-gib", type=numbers.amount, default=4.0, metavar="N", help="on the disk, for pixels")
    keeping.add_argument(
        "--journal-mib", type=numbers.above_zero, default=1024, metavar="N", help="on the disk, for the journal"
    )
    keeping.add_argument(
        "--drain-seconds", type=numbers.seconds, default=10.0, metavar="N", help="for jobs to end when stopped"
    )
    keeping.add_argument("--log-prompts", action="store_true", help="write what is painted into the log")
    parser.add_argument(
        "--stall-seconds", type=numbers.above_zero, default=30, help="until a client that does not read is cut off"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")


def _origin(word: str) -> str:
    """One site as browsers name it; `null` is none, but what every page sends that hides where it is from."""
    if not re.fullmatch(ORIGIN, word):
        raise argparse.ArgumentTypeError(f"must be like https://example.org or http://127.0.0.1:8000; it was {word}")
    return word


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("websockets").setLevel(logging.WARNING)
    asyncio.run(_serve(arguments, _options(arguments)))
    return 0


def _options(arguments: argparse.Namespace) -> Options:
    """What the daemon is told. Raises `CommandError` if it makes no sense."""
    return Options(
        gate=Gate(_tokens(), _hosts(arguments), frozenset(arguments.allow_origin)),
        address=arguments.listen.host,
        port=arguments.listen.port,
        tls=_tls(arguments),
        keep_seconds=arguments.keep_hours * 3600,
        keep_bytes=int(arguments.keep_gib * (1 << 30)),
        journal_bytes=arguments.journal_mib << 20,
        drain_seconds=arguments.drain_seconds,
        stall_seconds=arguments.stall_seconds,
        log_prompts=arguments.log_prompts,
    )


async def _serve(arguments: argparse.Namespace, options: Options) -> None:
    def listening(url: str) -> None:
        _remember(arguments, url)
        print(f"Underpaint listens on {url}", flush=True)

    _refuse_packed_and_fetched(arguments.precision, arguments.offload)
    _refuse_without_extra(arguments.precision)
    _refuse_a_second_one()
    memory = (arguments.memory_gib, arguments.precision, arguments.offload)
    host = LocalHost(LocalOptions(arguments.device, arguments.threads, arguments.models, *memory))
    await _try_out(host, arguments.device)
    try:
        await serve_until_signal(Daemon(host, options), listening)
    except OSError as error:
        await host.close()
        where = arguments.listen
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"cannot listen on {where}: something does already. Use it, or choose --port") from None
        raise CommandError(f"cannot listen on {where}: {error.strerror or error}") from None


async def _try_out(host: LocalHost, device: str) -> None:
    """Raises `CommandError` if there is no such device: nothing could ever be painted.

    There is always a CPU, and a best device, so for these nobody has to wait until the worker has started.
    """
    problem = "" if device in ALWAYS_THERE else await host.try_out()
    if problem:
        await host.close()
        raise CommandError(f"{problem}. Choose with --device, or leave it away for the best there is")


def _refuse_packed_and_fetched(precision: str, offload: str) -> None:
    """Raises `CommandError` for a precision that `--offload group` would pass over: what is fetched is not packed."""
    if offload == "group" and precision in PACKED:
        raise CommandError(
            f"--precision {precision} and --offload group do not go together: what is fetched layer by layer is not "
            f"kept in {precision}. Leave one of them away"
        )


def _refuse_without_extra(precision: str) -> None:
    """Raises `CommandError` if the precision needs a library that is not installed."""
    words = extras.lacking(extras.FOR_PRECISION[precision]) if precision in extras.FOR_PRECISION else ""
    if words:
        raise CommandError(f"--precision {precision} needs one more library; {words}")


def _refuse_a_second_one() -> None:
    """Raises `CommandError` if a daemon of this user has the journal; this one would be of no use to anybody."""
    data_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.close(claim(data_folder() / "journal.sqlite.lock"))
    except OSError as error:
        if error.errno in TAKEN:
            raise CommandError("a daemon of yours is running already. Use it, or stop it first") from None
        log.warning("this file system knows no locks: %s", error)


def _tokens() -> Tokens:
    try:
        return Tokens(token_file())
    except ValueError as error:
        raise CommandError(str(error)) from None


def _hosts(arguments: argparse.Namespace) -> frozenset[str]:
    """The names under which the daemon may be addressed, as they stand in `Host`: its own, and those it was told."""
    return frozenset(_in_host_header(name) for name in (arguments.listen.host, *arguments.allow_host))


def _in_host_header(name: str) -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower()
    return f"[{address}]" if address.version == 6 else str(address)


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """The encryption that the address needs."""
    if arguments.tls_cert is not None:
        return _encryption(arguments.tls_cert, arguments.tls_key)
    if arguments.tls_key is not None:
        raise CommandError("--tls-key is of no use without its certificate. Name that with --tls-cert")
    if not arguments.listen.is_loopback() and not arguments.insecure_no_tls:
        raise CommandError(
            f"{arguments.listen.host} can be reached by other machines, so --tls-cert and --tls-key are needed "
            "(or, on a network that you trust, --insecure-no-tls)"
        )
    return None


def _encryption(certificate: Path, key: Path | None) -> ssl.SSLContext:
    try:
        context = server_context(certificate, key)
    except BadCertificate as bad:
        raise CommandError(str(bad)) from None
    log.info("the certificate's fingerprint (SHA-256) is %s", fingerprint(certificate))
    return context


def _remember(arguments: argparse.Namespace, url: str) -> None:
    """Write down how this daemon was started, so that the plugin's button can start it again."""
    listen = place.Place(arguments.listen.host, int(url.rpartition(":")[2]))
    words = ["serve", "--listen", str(listen), "--device", arguments.device]
    words += ["--precision", arguments.precision, "--offload", arguments.offload]
    if arguments.memory_gib is not None:
        words += ["--memory-gib", str(arguments.memory_gib)]
    if arguments.threads is not None:
        words += ["--threads", str(arguments.threads)]
    for folder in arguments.models:
        words += ["--models", str(folder.absolute())]
    for name, file in (("--tls-cert", arguments.tls_cert), ("--tls-key", arguments.tls_key)):
        words += [name, str(file.absolute())] if file else []
    for name in ("keep_hours", "keep_gib", "journal_mib", "drain_seconds", "stall_seconds"):
        words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    words += ["--log-prompts"] if arguments.log_prompts else []
    words += ["--insecure-no-tls"] if arguments.insecure_no_tls else []
    for host in arguments.allow_host:
        words += ["--allow-host", host]
    for origin in arguments.allow_origin:
        words += ["--allow-origin", origin]
    command = [sys.executable, "-P", "-m", "underpaint_backend", *words]
    launch_file().write_text(json.dumps(command), encoding="utf-8")
