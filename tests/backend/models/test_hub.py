"""How the hub is reached: which address, which token, through which proxy, and who never hears the token."""

from __future__ import annotations

import email.utils
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from underpaint_backend.models.exceptions import DownloadCancelled
from underpaint_backend.models.hub import ENDPOINT, Busy, Denied, Hub, Nonsense, Settings, Unreachable, settings
from underpaint_backend.models.line import Line

from tests.backend.models.hub import StandIn, stand_in
from tests.backend.models.things import REPOSITORY, UNET, brush
from tests.certificates import self_signed


@pytest.fixture
def standing() -> Iterator[StandIn]:
    with stand_in(artist__brush=brush()) as running:
        yield running


def reach(given: Settings) -> Hub:
    return Hub(given, Event(), Line())


def test_what_is_said_goes_before_the_environment(tmp_path: Path) -> None:
    """And that before the hub itself."""
    environment = {"HF_ENDPOINT": "https://mirror.example/", "HF_TOKEN": " hf_a\n", "HF_HOME": str(tmp_path)}
    assert settings(environment=environment) == Settings("https://mirror.example", "hf_a")
    assert settings("https://x.example", "hf_b", True, environment) == Settings("https://x.example", "hf_b", True)
    assert settings(environment={"HF_HOME": str(tmp_path)}) == Settings(ENDPOINT)


@pytest.mark.parametrize(
    ("word", "offline"), [("1", True), ("true", True), ("ON", True), ("yes", True), ("0", False), ("", False)]
)
def test_offline_as_other_tools_read_it(word: str, offline: bool) -> None:
    """The words that the hub's own library knows."""
    assert settings(environment={"HF_HUB_OFFLINE": word, "HF_TOKEN": "hf_x"}).offline is offline


def test_the_token_in_its_file(tmp_path: Path) -> None:
    """Where other tools leave it, and where they are told to; a damaged one is none."""
    (tmp_path / "token").write_text("hf_file\n")
    (tmp_path / "other").write_text("hf_other")
    assert settings(environment={"HF_HOME": str(tmp_path)}).token == "hf_file"
    assert (
        settings(environment={"HF_HOME": str(tmp_path), "HF_TOKEN_PATH": str(tmp_path / "other")}).token == "hf_other"
    )
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    assert settings(environment={"HF_HOME": str(tmp_path)}).token is None


def test_a_token_is_not_printed() -> None:
    """Not in a log, not in an error."""
    assert "hf_secret" not in repr(Settings(token="hf_secret"))


@pytest.mark.parametrize("token", ["a b", "a\r\nX-Evil: 1", "ü", "x" * 501])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    """Before it gets into a header, and without being repeated."""
    with pytest.raises(ValueError, match="characters") as refusal:
        Settings(token=token)
    assert token not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("-3", 0, 0), ("nan", 0, 0), ("1e9", 3600, 3600), ("soon", None, None), (None, None, None)],
)
def test_how_long_to_wait(standing: StandIn, value: str | None, least: float | None, most: float | None) -> None:
    """Seconds as they are given, within reason; None where nothing sensible was said."""
    standing.answers = [("/api/", 429, {"Retry-After": value} if value is not None else {})]
    with pytest.raises(Busy) as busy:
        reach(Settings(standing.url)).commit(REPOSITORY, "main")
    assert busy.value.wait == least == most


def test_how_long_to_wait_as_a_date(standing: StandIn) -> None:
    """Retry-After may name a time of the day."""
    standing.answers = [("/api/", 503, {"Retry-After": email.utils.formatdate(time.time() + 60, usegmt=True)})]
    with pytest.raises(Busy) as busy:
        reach(Settings(standing.url)).commit(REPOSITORY, "main")
    assert 50 < (busy.value.wait or 0) <= 60


def test_a_list_that_goes_on_elsewhere_gets_no_token(standing: StandIn) -> None:
    """A next page on another host is asked without the token."""
    standing.page = 2
    own = standing.url
    standing.url = standing.cdn
    with pytest.raises(Busy):  # the other server has no API
        reach(Settings(own, "hf_good")).tree(REPOSITORY, "c" * 40)
    assert standing.requests("hub")[0].authorization == "Bearer hf_good"
    assert [asked.authorization for asked in standing.requests("cdn")] == [None]


def test_a_redirect_to_another_host_at_the_same_port_gets_no_token(standing: StandIn) -> None:
    """Only the host that was meant is sent the token, not another that this machine also goes by."""
    standing.redirect_to = f"{standing.url.replace('127.0.0.1', 'localhost')}/api/models/{REPOSITORY}/revision/main"
    with reach(Settings(standing.url, "hf_good")).opened(REPOSITORY, "c" * 40, UNET, 0) as response:
        assert response.status == 200
    assert [asked.authorization for asked in standing.requests("hub")] == ["Bearer hf_good", None]


def test_a_hub_that_gives_no_commit(standing: StandIn) -> None:
    """What names a folder here is checked."""
    standing.repositories[REPOSITORY].commit = "../../etc"
    with pytest.raises(Nonsense, match="names no commit"):
        reach(Settings(standing.url)).commit(REPOSITORY, "main")


def test_a_list_without_end(standing: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who sends page after page is not listened to for ever."""
    monkeypatch.setattr("underpaint_backend.models.hub.MAX_PAGES", 3)
    standing.page = 1
    with pytest.raises(Nonsense, match="does not end"):
        reach(Settings(standing.url)).tree(REPOSITORY, "c" * 40)


def test_a_page_without_end(standing: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a page that is larger than any list."""
    monkeypatch.setattr("underpaint_backend.models.hub.MAX_ANSWER", 100)
    with pytest.raises(Nonsense, match="no end"):
        reach(Settings(standing.url)).tree(REPOSITORY, "c" * 40)


def test_a_hub_closed_for_legal_reasons(standing: StandIn) -> None:
    """451 is not tried again."""
    standing.answers = [("/api/", 451, {})]
    with pytest.raises(Denied, match="451"):
        reach(Settings(standing.url)).commit(REPOSITORY, "main")


@contextmanager
def listening(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that hears one request and says `answer`."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        thread.join(5)


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_what_is_no_answer_is_a_cut(answer: bytes) -> None:
    """It is tried again, like a line that was cut."""
    with listening(answer) as (port, _), pytest.raises(Unreachable):
        reach(Settings(f"http://127.0.0.1:{port}")).commit(REPOSITORY, "main")


def test_a_proxy_hears_where_to_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets its own password, and never the hub's token."""
    with listening(b"HTTP/1.1 502 Bad Gateway\r\n\r\n") as (port, heard):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{port}")
        monkeypatch.setenv("https_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(Unreachable, match="502"):
            reach(Settings("https://hub.invalid", "hf_secret")).commit(REPOSITORY, "main")
    (request,) = heard
    assert request.startswith(b"CONNECT hub.invalid:443 ")
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in request
    assert b"hf_secret" not in request


def test_https_is_checked_and_never_left(standing: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for is refused, and so is a redirect from https to this machine's own http."""
    pair = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    answer = f"HTTP/1.1 302 Found\r\nLocation: {standing.cdn}/{REPOSITORY}/{UNET}\r\nContent-Length: 0\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                plain, _address = server.accept()
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        connection.recv(65536)
                        connection.sendall(answer)
                except OSError:
                    plain.close()

        threading.Thread(target=serve, daemon=True).start()
        hub = reach(Settings(f"https://127.0.0.1:{server.getsockname()[1]}"))
        with pytest.raises(Unreachable, match="CERTIFICATE"):
            hub.commit(REPOSITORY, "main")
        monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
        with pytest.raises(Nonsense, match="without encryption"):
            hub.commit(REPOSITORY, "main")
    assert not standing.asked


def test_nothing_is_asked_after_stop(standing: StandIn) -> None:
    """Whoever was told to stop makes no new connection."""
    stopped = Event()
    stopped.set()
    with pytest.raises(DownloadCancelled):
        Hub(Settings(standing.url), stopped, Line()).commit(REPOSITORY, "main")
    assert not standing.asked
