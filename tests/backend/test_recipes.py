"""The recipes of docs/remote.md, as they are printed there: real proxies in front of a real daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from underpaint_backend.launch import Launched, launched
from underpaint_backend.server import daemon as server
from underpaint_backend.server.access.handshake import Gate
from underpaint_backend.server.access.tokens import Tokens, load_token
from underpaint_backend.server.daemon import Daemon, Options
from underpaint_backend.server.hosts.local import LocalHost, LocalOptions
from underpaint_protocol.messages import SUBPROTOCOL, Hello, Welcome, vocabulary
from underpaint_protocol.vocabulary import FROM_SERVER
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.ports import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "remote.md").read_text(encoding="utf-8")
NAME = "box.example"
PATIENCE = 20.0
"""Seconds until a proxy listens."""


def recipe(heading: str, language: str) -> list[str]:
    """The blocks of one language below a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks, f"there is no block of {language} below “{heading}”"
    return blocks


def lines_of(block: str) -> list[list[str]]:
    """The commands of a block of shell, as lists of words."""
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def program(name: str) -> str:
    """Where a program is; the test is skipped if it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not on this machine; on Debian: apt install nginx caddy openssh-server openssl")
    return found


@contextlib.contextmanager
def running(folder: Path, port: int, *words: str) -> Iterator[None]:
    """A program in the foreground that listens on `port`, until the block ends."""
    log = folder / "program.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        end = time.monotonic() + PATIENCE
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def served(home: Path, words: Sequence[str], **changes: str) -> Iterator[Launched]:
    """The daemon as a recipe starts it, with `changes` to its words."""
    assert words[:2] == ["underpaint", "serve"]
    with launched(home, "--threads", "1", *(changes.get(word, word) for word in words[2:])) as daemon:
        yield daemon


def make_certificate(folder: Path) -> ssl.SSLContext:
    """Run the recipe's own command in `folder`; returns the encryption for clients that trust what came of it."""
    openssl, _ = lines_of(*recipe("With a certificate of its own", "sh"))
    subprocess.run([program(openssl[0]), *openssl[1:]], cwd=folder, check=True, capture_output=True)
    return ssl.create_default_context(cafile=folder / "cert.pem")


@contextlib.asynccontextmanager
async def client(url: str, token: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[ClientConnection]:
    """A client that was let in and does not ping by itself; all names are on loopback."""
    async with connect(
        url,
        host="127.0.0.1",
        port=int(url.rpartition(":")[2]),
        ssl=tls,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        additional_headers={"Authorization": f"Bearer {token}"},
        ping_interval=None,
        proxy=None,
    ) as connection:
        yield connection


async def is_welcome(connection: ClientConnection) -> bool:
    """Whether the daemon answers to a greeting."""
    await connection.send(vocabulary.encode(Hello("recipes")))
    answer = await asyncio.wait_for(connection.recv(decode=False), PATIENCE)
    return isinstance(vocabulary.decode(answer, FROM_SERVER), Welcome)


async def test_tokens_for_others(tmp_path: Path) -> None:
    """A guest's token opens a daemon that runs already, without a new start."""
    (add,) = lines_of(*recipe("Tokens for others", "sh"))
    with served(tmp_path / "home", ["underpaint", "serve"]) as daemon:
        printed = subprocess.run(
            [sys.executable, "-m", "underpaint_backend", *add[1:]],
            env={**os.environ, "UNDERPAINT_HOME": str(daemon.home)},
            check=True,
            capture_output=True,
            text=True,
        )
        (token,) = re.findall(r"\b[0-9a-f]{64}\b", printed.stdout)
        async with client(daemon.url, token) as connection:
            assert await is_welcome(connection)


async def test_through_ssh(tmp_path: Path) -> None:
    """Through a real SSH server with a key of its own."""
    there, here = (lines_of(block) for block in recipe("Through SSH", "sh"))
    ssh, port, forwarded = _secure_shell(tmp_path), free_port(), free_port()
    with served(tmp_path / "home", there[0]) as daemon, running(tmp_path, port, *ssh, "-p", str(port)):
        place = daemon.url.rpartition("//")[2]
        words = [f"{forwarded}:{place}" if word == "8739:127.0.0.1:8738" else word for word in here[0]]
        assert words != here[0]
        to_box = [program("ssh"), "-F", _settings_for_box(tmp_path, port), *words[1:]]
        with running(tmp_path, forwarded, *to_box):
            async with client(f"ws://127.0.0.1:{forwarded}", daemon.token) as connection:
                assert await is_welcome(connection)


def _secure_shell(folder: Path) -> list[str]:
    """A server that lets in whoever has the key in `folder`, as the user that runs the tests."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it there as soon as it is started by root
    for name in ("host", "user"):
        key = ["-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run([program("ssh-keygen"), *key], check=True)
    settings = folder / "sshd_config"
    settings.write_text(
        f"ListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'user.pub'}\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    return [program("sshd"), "-D", "-e", "-f", str(settings)]


def _settings_for_box(folder: Path, port: int) -> str:
    """What a person has in ~/.ssh/config."""
    settings = folder / "ssh_config"
    settings.write_text(
        f"Host {NAME}\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n"
    )
    return str(settings)


async def test_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """The certificate from the recipe's own command, in the daemon that it starts."""
    tls = make_certificate(tmp_path)
    _, serve = lines_of(*recipe("With a certificate of its own", "sh"))
    files = {name: str(tmp_path / name) for name in ("cert.pem", "key.pem")}
    with served(tmp_path / "home", serve, **files, **{"0.0.0.0:8738": "127.0.0.1:0"}) as daemon:
        port = daemon.url.rpartition(":")[2]
        async with client(f"wss://{NAME}:{port}", daemon.token, tls) as connection:
            assert await is_welcome(connection)


def test_from_the_command_line(tmp_path: Path) -> None:
    """What the page types at a box with a certificate of its own, with the fingerprint as the box's log has it."""
    make_certificate(tmp_path)
    variable, command = lines_of(*recipe("From the command line", "sh"))
    words = ["serve", "--listen", "127.0.0.1:0", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    files = {name: str(tmp_path / name) for name in ("cert.pem", "key.pem")}
    with served(tmp_path / "home", ["underpaint", *words], **files) as daemon:
        (line,) = [line for line in daemon.log.read_text().splitlines() if "fingerprint" in line]
        ours = {"--url": daemon.url, "--trust": line.partition(" is ")[2], "--output": str(tmp_path / "heart.png")}
        for option, value in ours.items():
            command[command.index(option) + 1] = value
        name = variable[1].partition("=")[0]
        run = subprocess.run(
            [sys.executable, "-m", "underpaint_backend", *command[1:], "--steps", "1", "--size", "64x64"],
            env={**os.environ, "UNDERPAINT_HOME": str(tmp_path / "tablet"), name: daemon.token},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "heart.png").exists()


async def test_behind_caddy(tmp_path: Path) -> None:
    """With a certificate of one's own; the daemon is asked under the name that the artist entered."""
    caddy, tls, port = program("caddy"), make_certificate(tmp_path), free_port()
    (serve,) = lines_of(*recipe("Behind Caddy", "sh"))
    _, block = recipe("Behind Caddy", "caddyfile")
    with served(tmp_path / "home", serve) as daemon:
        block = block.replace(f"{NAME}:443", f"{NAME}:{port}").replace("127.0.0.1:8738", daemon.url.rpartition("//")[2])
        (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + block)
        with running(tmp_path, port, caddy, "run", "--config", "Caddyfile"):
            async with client(f"wss://{NAME}:{port}", daemon.token, tls) as connection:
                assert await is_welcome(connection)


def test_caddys_other_block_is_understood(tmp_path: Path) -> None:
    """The one for a public name cannot be run here, but Caddy can read it."""
    caddy = program("caddy")
    (tmp_path / "Caddyfile").write_text(recipe("Behind Caddy", "caddyfile")[0])
    check = [caddy, "adapt", "--config", "Caddyfile", "--validate"]
    run = subprocess.run(check, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert NAME in run.stdout


def nginx_settings(folder: Path, port: int, place: str, timeout: str = "60s") -> str:
    """The recipe's block, in what nginx wants around it when it is started by hand."""
    (block,) = recipe("Behind nginx", "nginx")
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:8738": place,
        " cert.pem": f" {folder / 'cert.pem'}",
        " key.pem": f" {folder / 'key.pem'}",
        "proxy_read_timeout 60s": f"proxy_read_timeout {timeout}",
    }
    for old, new in changes.items():
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    around = f"daemon off;\npid {folder / 'pid'};\nerror_log stderr;\nevents {{}}\n"
    (folder / "nginx.conf").write_text(f"{around}http {{\naccess_log off;\n{folders}{block}}}\n")
    return str(folder / "nginx.conf")


async def test_behind_nginx(tmp_path: Path) -> None:
    """The daemon is asked under the name that the artist entered."""
    nginx, tls, port = program("nginx"), make_certificate(tmp_path), free_port()
    (serve,) = lines_of(*recipe("Behind nginx", "sh"))
    with served(tmp_path / "home", serve) as daemon:
        settings = nginx_settings(tmp_path, port, daemon.url.rpartition("//")[2])
        with running(tmp_path, port, nginx, "-p", str(tmp_path), "-c", settings):
            async with client(f"wss://{NAME}:{port}", daemon.token, tls) as connection:
                assert await is_welcome(connection)


@pytest.mark.parametrize(("pings", "survives"), [(0.5, True), (60.0, False)])
async def test_pings_survive_an_idle_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pings: float, survives: bool
) -> None:
    """nginx that cuts off after two seconds, and a client that says nothing for three: the daemon's pings keep it."""
    nginx, tls, port = program("nginx"), make_certificate(tmp_path), free_port()
    monkeypatch.setattr(server, "PING_INTERVAL", pings)
    gate = Gate(Tokens(tmp_path / "token"), frozenset({NAME}))
    daemon = Daemon(LocalHost(LocalOptions(threads=1)), Options(gate, port=0, home=tmp_path))
    async with daemon.listening() as listening:
        settings = nginx_settings(tmp_path, port, daemon.url(listening).rpartition("//")[2], "2s")
        with running(tmp_path, port, nginx, "-p", str(tmp_path), "-c", settings):
            async with client(f"wss://{NAME}:{port}", load_token(tmp_path / "token"), tls) as connection:
                await asyncio.sleep(3)
                if survives:
                    assert await is_welcome(connection)
                else:
                    with pytest.raises(ConnectionClosed):
                        await is_welcome(connection)
