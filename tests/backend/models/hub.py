"""A stand-in for the hub on loopback: its API, its files, and a second server that plays the network of copies.

It follows what the hub publishes about its API (https://huggingface.co/docs/hub/api) and answers as huggingface_hub's
own client expects. It can misbehave in each way in which a network does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK = 64 << 10


def git_hash(data: bytes) -> str:
    """What Git calls these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """Files at one commit. Weights are stored as large files, and come from the second server."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    gated: bool = False

    def listing(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for path, data in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
            if path.endswith((".safetensors", ".bin")):
                oid = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 134}
            entries.append(entry)
        folders = sorted({path.rpartition("/")[0] for path in self.files if "/" in path})
        return entries + [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in folders]


@dataclass(frozen=True)
class Asked:
    """One request as it came: "hub" or "cdn", its path, and two of its headers."""

    server: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class StandIn:
    """What is served, what goes wrong, and what was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    token: str = "hf_good"
    accepted: bool = True
    """Whether the account of `token` accepted the licences of gated repositories."""
    answers: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    """Part of a path, a status and headers: how the next request for it is answered, once each."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """By file: after how many bytes its next answers are cut, one each."""
    sent_instead: dict[str, bytes] = field(default_factory=dict)
    listing_instead: list[dict[str, Any]] | None = None
    page: int = 1000
    ranges: bool = True
    redirect_to: str | None = None
    """Where large files are said to be, instead of the second server."""
    hold_after: int | None = None
    """After how many bytes of a large file nothing more comes, until `release` is set."""
    release: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    cdn: str = ""
    bytes_sent: int = 0

    def requests(self, server: str, part: str = "") -> list[Asked]:
        """What was asked of one of the two servers."""
        return [asked for asked in self.asked if asked.server == server and part in asked.path]


@contextlib.contextmanager
def stand_in(**repositories: Repository) -> Iterator[StandIn]:
    """Run the two servers; a repository's name is written owner__name."""
    hub = StandIn({name.replace("__", "/"): repository for name, repository in repositories.items()})
    with _served(hub, "hub") as hub.url, _served(hub, "cdn") as hub.cdn:
        yield hub
        hub.release.set()


@contextlib.contextmanager
def _served(hub: StandIn, name: str) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "name": name}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        hub.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    name: str
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.hub
        hub.asked.append(Asked(self.name, self.path, self.headers["Range"], self.headers["Authorization"]))
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for answer in list(hub.answers):
                if answer[0] in self.path:
                    hub.answers.remove(answer)
                    return self.say(answer[1], b"no", answer[2])
            path = unquote(urlsplit(self.path).path)
            if self.name == "cdn":
                return self.large_file(path)
            for pattern, answer_to in (
                (r"/api/models/(\w[\w.-]*/[\w.-]+)/revision/(.+)", self.revision),
                (r"/api/models/(\w[\w.-]*/[\w.-]+)/tree/(\w+)", self.tree),
                (r"/(\w[\w.-]*/[\w.-]+)/resolve/(\w+)/(.+)", self.file),
            ):
                found = re.fullmatch(pattern, path)
                if found:
                    return answer_to(*found.groups())
            self.refuse(404, "EntryNotFound")
        return None

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.say(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def known(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            if self.headers["Authorization"] == f"Bearer {self.hub.token}":
                self.refuse(404, "RepoNotFound")
            else:
                self.refuse(401, "RepoNotFound")
        return repository

    def revision(self, name: str, revision: str) -> None:
        repository = self.known(name)
        if repository is None:
            return None
        if revision not in ("main", repository.commit):
            return self.refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in repository.files]
        gated = "auto" if repository.gated else False
        return self.json({"id": name, "sha": repository.commit, "siblings": siblings, "gated": gated})

    def tree(self, name: str, commit: str) -> None:
        repository = self.known(name)
        if repository is None:
            return None
        if commit != repository.commit:
            return self.refuse(404, "RevisionNotFound")
        found = re.search(r"cursor=(\d+)", self.path)
        start = int(found[1]) if found else 0
        entries = self.hub.listing_instead or repository.listing()
        following = start + self.hub.page
        headers = {}
        if following < len(entries):
            headers["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?cursor={following}>; rel="next"'
        return self.json(entries[start:following], headers)

    def json(self, answer: Any, headers: dict[str, str] | None = None) -> None:
        self.say(200, json.dumps(answer).encode(), {"Content-Type": "application/json", **(headers or {})})

    def file(self, name: str, commit: str, path: str) -> None:
        repository = self.known(name)
        if repository is None:
            return None
        if repository.gated:
            authorization = self.headers["Authorization"]
            if authorization is None:
                return self.refuse(401, "GatedRepo")
            if authorization != f"Bearer {self.hub.token}":
                return self.refuse(401, "")
            if not self.hub.accepted:
                return self.refuse(403, "GatedRepo")
        if path not in repository.files or commit != repository.commit:
            return self.refuse(404, "EntryNotFound")
        data = repository.files[path]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": f'"{git_hash(data)}"'}
        if not path.endswith((".safetensors", ".bin")):
            return self.bytes_of(path, data, headers)
        oid = hashlib.sha256(data).hexdigest()
        headers.update({"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data))})
        headers["Location"] = self.hub.redirect_to or f"{self.hub.cdn}/{name}/{path}"
        return self.say(302, b"", headers)

    def large_file(self, path: str) -> None:
        owner, name, inside = path.strip("/").split("/", 2)
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            return self.refuse(404, "")
        return self.bytes_of(inside, repository.files[inside], {"ETag": '"another"'})

    def bytes_of(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        data = self.hub.sent_instead.get(path, data)
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked and self.hub.ranges:
            start, status = int(asked[1]), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data) - start), "Connection": "close", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = self.hub.cuts.get(path)
        end = start + cuts.pop(0) if cuts else len(data)
        self.pour(data[start:end])

    def pour(self, data: bytes) -> None:
        hold = self.hub.hold_after
        for begin in range(0, len(data), CHUNK):
            if hold is not None and self.name == "cdn" and begin >= hold:
                self.hub.held.set()
                self.hub.release.wait(30)
                return
            piece = data[begin : begin + CHUNK]
            self.wfile.write(piece)
            self.hub.bytes_sent += len(piece)
