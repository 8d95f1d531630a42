"""The network is hostile: one test for each thing that the daemon promises, by number.

What is only sampled here is tried in full beside it: tests/backend/server, tests/backend/cli, tests/plugin_krita.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import socket
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import torch
from underpaint_backend.client import Refused, connect
from underpaint_backend.launch import Launched, launched
from underpaint_backend.server.access.guests import Guest, changing
from underpaint_backend.server.access.tokens import Tokens, digest_of, guests_beside, load_token, make_token
from underpaint_protocol.errors import describe
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    MAX_FRAME,
    SUBPROTOCOL,
    TERMINAL,
    Accepted,
    Cancel,
    Done,
    Error,
    Failed,
    Fetch,
    Have,
    Hello,
    Missing,
    Request,
    Resume,
    Submit,
    Tile,
    Welcome,
    vocabulary,
)
from underpaint_protocol.tiles import name_of
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.typing import Subprotocol

from tests.backend.cli.test_token import added
from tests.backend.engine.tiny import build_tiny
from tests.backend.models.hub import stand_in
from tests.backend.server.calling import INPAINT, LONG, SHORT, Caller, ask, greeted, opened
from tests.backend.worker.driving import WorkerProcess

ROOT = Path(__file__).resolve().parents[2]
OURS = [ROOT / "backend" / "underpaint_backend", ROOT / "protocol", ROOT / "plugin_krita" / "underpaint_krita"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Launched, str]]:
    """A daemon that has a guest with small bounds, and the guest's token."""
    home = tmp_path_factory.mktemp("guarded")
    words = ["--connections", "2", "--jobs", "2", "--megapixels", "1", "--upload-mib", "1", "--work-per-day", "20"]
    token = added(home, "guest", *words)
    build_tiny(home / "models" / "pickled", 9)
    weights = home / "models" / "pickled" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with launched(home, "--threads", "1") as daemon:
        yield daemon, token


async def refusal(url: str, **headers: str) -> tuple[int, str, str]:
    """Status, error code and body with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await open_socket(url, subprotocols=[Subprotocol(SUBPROTOCOL)], additional_headers=headers, proxy=None)
    body = (refused.value.response.body or b"").decode()
    return refused.value.response.status_code, json.loads(body)["code"], body


def serve_words(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What `underpaint serve` says when it does not even start."""
    command = [sys.executable, "-m", "underpaint_backend", "serve", *words]
    environment = {"UNDERPAINT_HOME": str(home), "PATH": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


async def test_1_only_this_machine_is_listened_to_unless_there_is_tls(daemon: Launched, tmp_path: Path) -> None:
    """The default address is loopback, and any other without encryption needs one spelled-out flag."""
    assert daemon.url.startswith("ws://127.0.0.1:")
    run = serve_words(tmp_path, "--listen", "0.0.0.0:0")
    assert run.returncode == 2
    assert "--insecure-no-tls" in run.stderr


async def test_2_a_token_always_and_never_where_others_can_read_it(daemon: Launched) -> None:
    """256 bits in a file for its owner alone, in the header alone, in no log and no error."""
    path = daemon.home / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(daemon.token)) == 32
    assert await refusal(daemon.url) == (401, "unauthorized", json.dumps(_wire("unauthorized"), ensure_ascii=False))
    assert (await refusal(f"{daemon.url}/?token={daemon.token}"))[0] == 401
    _, _, body = await refusal(daemon.url, Authorization=f"Bearer {daemon.token}x")
    assert daemon.token not in body
    assert daemon.token not in daemon.log.read_text()


def _wire(code: str) -> dict[str, object]:
    return describe(code).to_wire()


def test_2_tokens_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that is known with each that comes, to the last, and nothing else decides who that is."""
    path, guest = tmp_path / "token", make_token()
    with changing(guests_beside(path)) as guests:
        guests["anna"] = Guest(digest_of(guest))
    tokens, own = Tokens(path), load_token(path)
    really = hmac.compare_digest
    asked: list[tuple[str, str]] = []
    decision: list[bool] = []

    def compare(known: str, given: str) -> bool:
        asked.append((known, given))
        return decision[0] if decision else really(known, given)

    def whose(token: str) -> str | None:
        asked.clear()
        owner = tokens.find(token)
        assert sorted(asked) == sorted((digest_of(known), digest_of(token)) for known in (own, guest))
        return owner.name if owner is not None else None

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert [whose(token) for token in (own, guest, make_token())] == ["owner", "anna", None]
    decision = [False]
    assert [whose(token) for token in (own, guest)] == [None, None]
    decision = [True]
    assert whose(make_token()) is not None


async def test_3_whoever_sends_an_origin_is_refused(daemon: Launched) -> None:
    """A web page cannot connect, `null` neither, with the right token neither."""
    for origin in ("null", "http://127.0.0.1", "https://evil.example"):
        answer = await refusal(daemon.url, Authorization=f"Bearer {daemon.token}", Origin=origin)
        assert answer[:2] == (403, "forbidden_origin")


def test_4_another_host_is_refused(daemon: Launched) -> None:
    """A name that was made to resolve here is not one of the daemon's."""
    request = (
        f"GET / HTTP/1.1\r\nHost: rebound.example\r\nAuthorization: Bearer {daemon.token}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(daemon.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(request.encode())
        assert b" 403 " in connection.makefile("rb").readline()


async def test_5_models_are_named_and_never_reached_by_path(guarded: tuple[Launched, str], tmp_path: Path) -> None:
    """What a client calls a model is looked up, not opened; a link that leads out of the folder is not followed."""
    daemon, _ = guarded
    connection, _ = await greeted(daemon)
    for name, code in {
        "../pickled": "invalid_field",
        "/etc/passwd": "invalid_field",
        "a/../../b": "invalid_field",
        "Primer": "invalid_field",
        "pickled/unet": "unknown_model",
    }.items():
        wire = Submit("job", SHORT).to_wire()
        wire["request"]["model"] = name
        answer = await ask(connection, msgpack.packb({"type": "submit", **wire}))
        assert isinstance(answer, Error)
        assert answer.error.code == code
    await connection.close()
    build_tiny(tmp_path / "elsewhere", 9)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "linked").symlink_to(tmp_path / "elsewhere")
    listed = subprocess.run(
        [sys.executable, "-m", "underpaint_backend", "models"],
        env={"UNDERPAINT_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert listed.returncode == 0, listed.stderr
    assert "primer-inpaint" in listed.stdout
    assert "elsewhere" not in listed.stdout


async def test_6_pickled_weights_are_never_opened(guarded: tuple[Launched, str]) -> None:
    """A model whose weights are a pickle is refused by the file's name, with what to do about it."""
    daemon, _ = guarded
    async with Caller(daemon) as caller:
        caller.submit("a", replace(SHORT, model="pickled"))
        end = await caller.end_of("a")
    assert isinstance(end, Failed)
    assert "diffusion_pytorch_model.bin" in end.error.message
    assert "safe_serialization" in end.error.message
    for path in _sources():
        assert not re.search(r"trust_remote_code\s*=\s*True|torch\.load\(", path.read_text()), path


async def test_7_pixels_have_a_declared_size_and_are_capped_before_they_are_unpacked(daemon: Launched) -> None:
    """A picture of impossible size and a bomb are refused by their numbers; nothing swells in the daemon's memory."""
    connection, welcome = await greeted(daemon)
    before = _peak(daemon)
    bomb = zlib.compress(bytes(1 << 30), 9)[: 512 << 10]
    for _ in range(20):
        answer = await ask(connection, Tile(b"0" * 16, 1000, bomb, "zlib"))
        assert isinstance(answer, Error)
        assert answer.error.code == "bad_tile"
        assert _peak(daemon) - before < 30 << 20
    huge = replace(SHORT, width=16384, height=16384)
    assert huge.width * huge.height > welcome.limits.max_pixels
    answer = await ask(connection, Submit("a", huge))
    assert isinstance(answer, Error)
    assert answer.error.code == "too_many_pixels"
    assert _peak(daemon) - before < 30 << 20
    await connection.close()


def _peak(daemon: Launched) -> int:
    """Bytes of memory that the daemon itself has ever used at once; 0 where that cannot be told."""
    with suppress(OSError):
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        (kib,) = re.findall(r"VmHWM:\s+(\d+)", status)
        return 1024 * int(kib)
    return 0


async def test_8_frames_are_bounded_in_every_way(daemon: Launched) -> None:
    """Too large, too deep, of an extension type, or compressed: each is refused, and only the first closes."""
    connection, _ = await greeted(daemon)
    assert connection.protocol.extensions == []
    nested: object = {}
    for _ in range(100):
        nested = [nested]
    for frame in (
        msgpack.packb({"type": "hello", "client": "x", "more": nested}),
        msgpack.packb({"type": "hello", "client": msgpack.ExtType(5, b"x")}),
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\x7f\xff\xff\xff",
    ):
        answer = await ask(connection, frame)
        assert isinstance(answer, Error)
        assert answer.error.code == "malformed_message"
    await connection.send(bytes(MAX_FRAME + 1))
    with pytest.raises(ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_9_each_token_has_its_bounds(guarded: tuple[Launched, str]) -> None:
    """Connections, jobs, pixels, bytes that wait, work in a day, wrong tokens: each has its error with what to do."""
    daemon, token = guarded
    first, welcome = await greeted(daemon, token)
    second, _ = await greeted(daemon, token)
    assert (welcome.limits.max_jobs, welcome.limits.work_per_day) == (2, 20)
    assert (await refusal(daemon.url, Authorization=f"Bearer {token}"))[:2] == (429, "too_many_connections")
    await second.close()

    async def code(submit: Submit) -> str:
        return await _answer(first, submit)

    large, _ = image_of(600, 600, 4, bytes(600 * 600 * 4))
    mask, _ = image_of(600, 600, 1, bytes(600 * 600))
    assert await code(Submit("pixels", replace(SHORT, width=1100, height=1000))) == "too_many_pixels"
    bytes_ = replace(INPAINT, width=600, height=600, image=large, mask=mask)
    assert await code(Submit("bytes", bytes_)) == "too_many_pixels"
    assert await code(Submit("work", replace(SHORT, width=900, height=900, steps=100))) == "too_much_work"
    assert [await code(Submit(str(n), replace(LONG, steps=900))) for n in range(3)] == [
        "accepted",
        "accepted",
        "too_many_jobs",
    ]
    await _stop(first, "0", "1")
    wrong = [(await refusal(daemon.url, Authorization=f"Bearer {'0' * 64}"))[0] for _ in range(25)]
    assert wrong[0] == 401
    assert wrong[-1] == 429
    await (await opened(daemon)).close()  # whoever has the right token is let in all the same


async def test_9_the_bounds_of_a_token_hold_over_all_its_connections(guarded: tuple[Launched, str]) -> None:
    """Who asks on several of them at the same moment gets no more than who asks on one."""
    daemon, token = guarded
    (one, _), (other, _) = await greeted(daemon, token), await greeted(daemon, token)
    job = replace(LONG, steps=100)  # one megapixel step
    assert await _answer(one, Submit("first", job)) == "accepted"
    both = await asyncio.gather(_answer(one, Submit("second", job)), _answer(other, Submit("third", job)))
    assert sorted(both) == ["accepted", "too_many_jobs"]
    await _stop(one, "first", *(["second"] if both[0] == "accepted" else []))
    await _stop(other, *(["third"] if both[1] == "accepted" else []))


async def test_9_pixels_of_which_no_picture_is_made_are_bounded(tmp_path: Path) -> None:
    """Also between tiny jobs that are cancelled at once, which use none of them: what others sent stays."""
    token = added(tmp_path, "guest", "--upload-mib", "1", "--jobs", "1", "--work-per-day", "20")
    tiny = replace(SHORT, width=64, height=64, steps=1)
    with launched(tmp_path, "--threads", "1") as daemon:
        names = []
        for job in map(str, range(5)):
            guest, _ = await greeted(daemon, token)
            for data in [os.urandom(1 << 18) for _ in range(8)]:
                names.append(name_of(data))
                await guest.send(vocabulary.encode(Tile(names[-1], len(data), data)))
            await guest.send(vocabulary.encode(Submit(job, tiny)))
            await _stop(guest, job)
        guest, _ = await greeted(daemon, token)
        assert await ask(guest, Have(1, tuple(names))) == Missing(tuple(names[8:]), 1)
        await guest.close()


async def _answer(socket: ClientConnection, submit: Submit) -> str:
    """Submit a job; returns "accepted" or the code of the error."""
    answer = await ask(socket, submit)
    while not isinstance(answer, (Accepted, Error)) or answer.job != submit.job:
        answer = vocabulary.decode(await socket.recv(decode=False))
    return answer.error.code if isinstance(answer, Error) else "accepted"


async def _stop(socket: ClientConnection, *jobs: str) -> None:
    """Wait until these have ended, cancelled if need be, and go."""
    waiting = set(jobs)
    for job in jobs:
        await socket.send(vocabulary.encode(Cancel(job)))
    while waiting:
        message = vocabulary.decode(await socket.recv(decode=False))
        if isinstance(message, TERMINAL):
            waiting.discard(message.job)
    await socket.close()


async def test_10_nobody_reaches_the_jobs_of_another(guarded: tuple[Launched, str]) -> None:
    """With another token, the session, the job and its pixels are as unknown as those that never were."""
    daemon, token = guarded
    async with Caller(daemon) as mine:
        mine.submit("mine", LONG)
        await mine.denoising("mine")
        theirs, _ = await greeted(daemon, token)
        assert mine.core.session is not None
        for session in (mine.core.session, "f" * 32):
            assert await ask(theirs, Resume(session, 0)) == Error(describe("unknown_session"))
        for message in (Cancel("mine"), Fetch("mine", (b"0" * 16,)), Cancel("never"), Fetch("never", ())):
            assert await ask(theirs, message) == Error(describe("unknown_job"), message.job)
        await theirs.close()
        assert mine.core.running == ("mine",)


async def test_11_a_token_goes_nowhere_but_where_it_belongs() -> None:
    """Whoever redirects a client elsewhere does not send its token there."""
    heard: list[str] = []

    def thief(connection: ServerConnection, request: HttpRequest) -> Response:
        heard.append(str(request.headers.get("Authorization")))
        return connection.respond(404, "")  # type: ignore[arg-type]

    async def nothing(connection: ServerConnection) -> None:
        """Nobody comes this far."""

    async with serve(nothing, "127.0.0.1", 0, process_request=thief) as other:
        port = next(iter(other.sockets)).getsockname()[1]

        def elsewhere(connection: ServerConnection, request: HttpRequest) -> Response:
            response = connection.respond(302, "")  # type: ignore[arg-type]
            response.headers["Location"] = f"ws://127.0.0.1:{port}/"
            return response

        async with serve(nothing, "127.0.0.1", 0, process_request=elsewhere) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            with pytest.raises(Refused):
                async with connect(url, "secret" * 10, patience=1.0):
                    pass
    assert all("secret" not in header for header in heard)


ASKING = (
    "from underpaint_backend.worker.__main__ import _quiet_libraries; _quiet_libraries()\n"
    "from huggingface_hub import model_info; model_info('artist/brush')"
)


def test_11_a_worker_asks_the_network_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads and paints without a word to the hub; were a library asked there for a model, that would not ask."""
    with stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        build_tiny(tmp_path / "plain", 4)
        worker = WorkerProcess([tmp_path])
        worker.wait_ready()
        messages = worker.run(Request("plain", "text_to_image", 64, 64, prompt="a red heart", steps=2))
        assert isinstance(messages[-1], Done)
        assert worker.close() == 0
        asking = subprocess.run([sys.executable, "-P", "-c", ASKING], capture_output=True, text=True, timeout=60)
        assert hub.asked == []
        assert "OfflineModeIsEnabled" in asking.stderr


async def test_12_no_pickle_anywhere_and_no_prompt_in_the_log(tmp_path: Path) -> None:
    """Nothing of ours imports pickle; what an artist asks for is not logged unless the daemon is told to."""
    for path in _sources():
        assert not re.search(r"^\s*(import|from) (pickle|marshal|shelve|dill)\b", path.read_text(), re.MULTILINE), path
    for name, words in {"silent": (), "telling": ("--log-prompts",)}.items():
        with launched(tmp_path / name, "--threads", "1", *words) as daemon:
            async with Caller(daemon) as caller:
                caller.submit("a", replace(SHORT, prompt="xyzzy"))
                await caller.until(lambda event: isinstance(event, Accepted))
            assert ("xyzzy" in daemon.log.read_text()) == (name == "telling")


async def test_13_bad_input_is_answered_and_only_who_breaks_framing_is_closed(daemon: Launched) -> None:
    """Nonsense gets a typed error on a connection that goes on; a broken frame gets a close code that says why."""
    connection, _ = await greeted(daemon)
    for frame in (b"", b"junk", "text", msgpack.packb({"type": "dance"}), vocabulary.encode(Hello("again"))):
        assert isinstance(await ask(connection, frame), Error)
    await connection.close()
    broken = await opened(daemon)
    broken.transport.write(b"\x83\x80\x00\x00\x00\x00")  # a frame of no known kind
    with pytest.raises(ConnectionClosed) as closed:
        await broken.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1002
    silent = await opened(daemon)
    assert isinstance(await ask(silent, Hello("test")), Welcome)
    await silent.close()


def _sources() -> list[Path]:
    return [path for folder in OURS for path in folder.rglob("*.py") if "_vendor" not in path.parts]
