"""The hub as it is asked for models: its API, and the ranges of its files. Standard library only.

A token goes to the endpoint's own host and nowhere else: not along a redirect, and not without encryption, except to
this machine. A redirect is followed to https alone.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import ipaddress
import os
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from underpaint_protocol import __version__

from .exceptions import DownloadCancelled
from .line import Line, connect
from .offers import COMMIT
from .plain_json import parse_json
from .store import RemoteFile, hub_home

ENDPOINT = "https://huggingface.co"
TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as cut."""
REDIRECTS = 5
MAX_ANSWER = 32 << 20
"""Bytes of one page of the API."""
MAX_PAGES = 100
TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Settings:
    """How the hub is reached. With `offline` nothing is ever asked."""

    endpoint: str = ENDPOINT
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"“{self.endpoint}” is no address of a hub; one looks like https://huggingface.co")
        if parts.username is not None:
            raise ValueError("the hub's address must not have a password in it")
        if parts.scheme == "http" and not _is_this_machine(parts.hostname):
            raise ValueError(f"the hub's address must begin with https://; it was {self.endpoint}")
        if self.token is not None and not re.fullmatch(r"[!-~]{1,500}", self.token):
            raise ValueError("the hub's token has characters that no token has")


def settings(
    endpoint: str | None = None,
    token: str | None = None,
    offline: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """What was asked for; where nothing was, what the environment says, as for other tools of the hub.

    Raises `ValueError` if the address or the token cannot be one.
    """
    return Settings(
        (endpoint or environment.get("HF_ENDPOINT") or ENDPOINT).rstrip("/"),
        token or _token(environment),
        offline or environment.get("HF_HUB_OFFLINE", "").lower() in TRUE,
    )


def _token(environment: Mapping[str, str]) -> str | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environment.get(name, "").strip():
            return environment[name].strip()
    path = environment.get("HF_TOKEN_PATH")
    try:
        found = (Path(path) if path else hub_home(environment) / "token").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return found or None


def _is_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class HubError(Exception):
    """The hub did not give what it was asked for."""


class Unreachable(HubError):
    """The hub cannot be reached, or the connection was cut. Trying again may help."""


class NotReached(Unreachable):
    """There was not even a connection: nobody is there, or there is no network."""


class Busy(HubError):
    """The hub asks for patience: `wait` seconds, where it said how many."""

    def __init__(self, status: int, wait: float | None) -> None:
        super().__init__(f"it answered {status} {http.client.responses.get(status, '')}".strip())
        self.wait = wait


class Denied(HubError):
    """The hub gives this to others only. `code` is its own word for why."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"it answered {status} {code or http.client.responses.get(status, '')}".strip())
        self.status = status
        self.code = code


class NotThere(HubError):
    """There is no such thing. `code` is the hub's own word for what is missing."""

    def __init__(self, code: str) -> None:
        super().__init__(code or "it answered 404")
        self.code = code


class Nonsense(HubError):
    """The hub answered what no hub answers."""


@dataclass(frozen=True)
class Tree:
    """What a repository holds at a commit; `blobs` are Git's hashes by path."""

    commit: str
    files: Mapping[str, RemoteFile]
    blobs: Mapping[str, str]


class Hub:
    """Asks the hub of `settings`. Every method raises `HubError`, and `DownloadCancelled` if the line was cut."""

    def __init__(self, settings: Settings, cancelled: Event, line: Line) -> None:
        self.settings = settings
        self._cancelled = cancelled
        self._line = line

    def commit(self, repository: str, revision: str) -> str:
        """The commit at which a branch is."""
        return self.told_of(repository, revision)[0]

    def told_of(self, repository: str, revision: str) -> tuple[str, bool]:
        """The commit at which a branch is, or which it names; and whether a licence has to be accepted first."""
        answer, _ = self._json(f"{self._api(repository)}/revision/{quote(revision, safe='')}")
        found = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(found, str) or not COMMIT.fullmatch(found):
            raise Nonsense("it names no commit")
        return found, answer.get("gated") in ("auto", "manual", True)

    def tree(self, repository: str, commit: str) -> Tree:
        """All files of a repository at a commit."""
        files: dict[str, RemoteFile] = {}
        blobs: dict[str, str] = {}
        url: str | None = f"{self._api(repository)}/tree/{commit}?recursive=true&expand=false"
        for _ in range(MAX_PAGES):
            if url is None:
                return Tree(commit, files, blobs)
            page, url = self._json(url)
            for file, blob in _files_in(page):
                files[file.path] = file
                blobs[file.path] = blob
        raise Nonsense(f"the list of {repository} does not end")

    @contextlib.contextmanager
    def opened(self, repository: str, commit: str, path: str, start: int) -> Iterator[HTTPResponse]:
        """The bytes of a file from `start` on: status 206, or 200 with all of them where ranges are not known."""
        address = f"{self.settings.endpoint}/{repository}/resolve/{commit}/{quote(path)}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._get(address, headers) as response:
            yield response

    def text(self, repository: str, commit: str, path: str) -> bytes:
        """A small file, whole."""
        with self.opened(repository, commit, path, 0) as response:
            return self._read(response)

    def _api(self, repository: str) -> str:
        return f"{self.settings.endpoint}/api/models/{repository}"

    def _json(self, url: str) -> tuple[Any, str | None]:
        """What the API answers, and where its next page is."""
        with self._get(url, {"Accept": "application/json"}) as response:
            data = self._read(response)
            following = re.search(r'<([^>]+)>;\s*rel="next"', response.headers.get("Link", ""))
        try:
            return parse_json(data), self._next(url, following[1]) if following else None
        except ValueError:
            raise Nonsense("it answered what is not JSON") from None

    def _read(self, response: HTTPResponse) -> bytes:
        try:
            data = response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self.failure(error) from error
        if len(data) > MAX_ANSWER:
            raise Nonsense("its answer has no end")
        if response.length:
            raise self.failure(ConnectionError("the connection was cut"))
        return data

    def failure(self, error: Exception) -> Exception:
        """What an error of the connection means: it was cut by us, or it broke."""
        if self._cancelled.is_set():
            return DownloadCancelled()
        return Unreachable(_in_words(error))

    @contextlib.contextmanager
    def _get(self, url: str, headers: Mapping[str, str]) -> Iterator[HTTPResponse]:
        """Follow redirects to an answer with the status 200 or 206."""
        for _ in range(REDIRECTS + 1):
            with contextlib.closing(self._connection(url)) as connection:
                try:
                    with self._ask(connection, url, headers) as response:
                        if response.status not in (301, 302, 303, 307, 308):
                            self._check(response, url)
                            yield response
                            return
                        url = self._next(url, response.headers.get("Location"))
                finally:
                    self._line.use(None)
        raise Nonsense("it redirects without end")

    def _ask(self, connection: HTTPConnection, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        if self._cancelled.is_set():
            raise DownloadCancelled
        sent = {"User-Agent": f"underpaint/{__version__}", "Accept-Encoding": "identity", **headers}
        if self.settings.token and self._is_own(url):
            sent["Authorization"] = f"Bearer {self.settings.token}"
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            connect(connection, self._cancelled)
        except OSError as error:
            raise NotReached(_in_words(error)) from error
        try:
            self._line.use(connection.sock)
            connection.request("GET", target, headers=sent)
            return connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.failure(error) from error

    def _connection(self, url: str) -> HTTPConnection:
        """Through the proxy that the environment or the system names, if any."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme == "http":  # this machine
            return HTTPConnection(host, port, timeout=TIMEOUT)
        proxy = urllib.request.getproxies().get("https")
        if not proxy or urllib.request.proxy_bypass(host):
            return HTTPSConnection(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
        via = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        connection = HTTPSConnection(
            via.hostname or "", via.port or 8080, timeout=TIMEOUT, context=ssl.create_default_context()
        )
        connection.set_tunnel(host, port, headers=_for_proxy(via))
        return connection

    def _check(self, response: HTTPResponse, url: str) -> None:
        status, code = response.status, _word(response.headers.get("X-Error-Code"))
        if status in (200, 206):
            return
        if status == 429 or status >= 500:
            raise Busy(status, _patience(response.headers.get("Retry-After")))
        if status == 416:
            raise Nonsense("it has fewer bytes of this file than it said")
        if not self._is_own(url):  # a signed address that is too old by now
            raise Busy(status, None)
        if status in (401, 403) or status == 451:
            raise Denied(status, code)
        if status in (404, 410):
            raise NotThere(code)
        raise Nonsense(f"it answered {status}")

    def _next(self, url: str, location: str | None) -> str:
        try:
            following = urljoin(url, location or "")
            parts = urlsplit(following)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise Nonsense("it redirects to what is no address") from None
        own = urlsplit(self.settings.endpoint)
        allowed = parts.scheme == "https" or (
            parts.scheme == "http" and own.scheme == "http" and _is_this_machine(host)
        )
        if location is None or not host or not allowed:
            raise Nonsense("it redirects to an address without encryption")
        return following

    def _is_own(self, url: str) -> bool:
        """Whether an address is on the endpoint's own host: nobody else gets the token."""
        theirs, own = urlsplit(url), urlsplit(self.settings.endpoint)
        return (theirs.scheme, theirs.hostname, theirs.port) == (own.scheme, own.hostname, own.port)


def _files_in(page: Any) -> Iterator[tuple[RemoteFile, str]]:
    if not isinstance(page, list):
        raise Nonsense("its list of files is none")
    for entry in page:
        try:
            if entry["type"] != "file":
                continue
            large = entry.get("lfs") or {}
            file = RemoteFile(entry["path"], int(large.get("size", entry["size"])), large.get("oid", entry["oid"]))
            yield file, str(entry["oid"])
        except (KeyError, TypeError, AttributeError) as error:
            raise Nonsense("its list of files is damaged") from error
        except ValueError as error:
            raise Nonsense(str(error)) from error


def _for_proxy(via: SplitResult) -> dict[str, str]:
    """The name and password that a proxy's address has in it, as the proxy wants them."""
    if via.username is None:
        return {}
    secret = f"{unquote(via.username)}:{unquote(via.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}


def _word(code: str | None) -> str:
    return code if code and re.fullmatch(r"\w{1,60}", code) else ""


def _patience(value: str | None) -> float | None:
    """Seconds that a Retry-After asks for; it is a number or a date."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, min(float(value), 3600.0))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came for a while"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    if isinstance(error, socket.gaierror):
        return "nobody here knows that address"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
