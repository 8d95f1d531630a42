"""`underpaint models pull`: with a token, without a network, and stopped in the middle."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from underpaint_backend.cli.models.progress import in_words
from underpaint_backend.models.meter import Progress
from underpaint_backend.models.offers import offers

from tests.backend.cli.models.typed import Say, state_of
from tests.backend.models.hub import Repository, StandIn
from tests.backend.models.things import REPOSITORY, model_index, weights


def test_a_gated_model_says_how_to_get_it(say: Say, hub: StandIn) -> None:
    """No traceback, and no other error than the one that helps; the token then opens it."""
    hub.repositories["black-forest-labs/FLUX.2-klein-9B"] = Repository(
        {
            "model_index.json": model_index("transformer"),
            "scheduler/scheduler_config.json": b"{}",
            "tokenizer/tokenizer.json": b"{}",
            **{f"{part}/config.json": b"{}" for part in ("transformer", "text_encoder", "vae")},
            **{f"{part}/model.safetensors": weights(5) for part in ("transformer", "text_encoder", "vae")},
        },
        commit=offers()["flux2-klein:9b"].sources[0].revision,
        gated=True,
    )
    code, _, err = say("pull", "flux2-klein:9b")
    assert code == 1
    assert "https://huggingface.co/black-forest-labs/FLUX.2-klein-9B" in err
    assert "no token was given" in err
    assert "Traceback" not in err
    assert say("pull", "flux2-klein:9b", "--hub-token", "hf_good")[0] == 0
    assert state_of("flux2-klein:9b") == "ready"


def test_the_token_of_other_tools_is_used(say: Say, hub: StandIn, home: Path) -> None:
    """Whoever has logged in once need not do so again."""
    hub.repositories[REPOSITORY].gated = True
    (home / "hf").mkdir()
    (home / "hf" / "token").write_text("hf_good\n")
    assert say("add", "brush", REPOSITORY)[0] == 0
    assert say("pull", "brush")[0] == 0


def test_offline_is_obeyed(say: Say, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """By word and by environment, and not a request is made."""
    err = say("pull", "sd15", "--offline")[2]
    assert ("offline" in err, "HF_HUB_OFFLINE" in err) == (True, True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert say("pull", "sd15")[0] == 1
    assert say("add", "brush", REPOSITORY)[0] == 2
    assert hub.asked == []


def test_without_a_network_a_mirror_is_told_of(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that there is no folder of this name, in case one was meant."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = say("add", "x", "artist/brush")
    assert (code, "there is no folder artist/brush here, and http://127.0.0.1:9 says nothing of it" in err) == (2, True)
    assert "--endpoint or HF_ENDPOINT" in err


def test_a_mirror_is_used(say: Say, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """--endpoint goes before HF_ENDPOINT."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert say("add", "brush", REPOSITORY, "--endpoint", hub.url)[0] == 0
    assert say("pull", "brush", "--endpoint", hub.url)[0] == 0
    assert hub.asked


@pytest.mark.parametrize("words", [["--endpoint", "http://example.org"], ["--hub-token", "with space"]])
def test_a_hub_that_cannot_be_one_is_said_in_one_line(say: Say, words: list[str]) -> None:
    """Before anything is asked."""
    code, _, err = say("pull", "sd15", *words)
    assert code == 2
    assert err.count("\n") == 1


def test_progress_in_words() -> None:
    """Bytes, share, speed, time and file, as far as they are known."""
    known = Progress(4_200_000_000, 16_000_000_000, 11_200_000, 1050, "vae/x.safetensors")
    assert in_words(known) == "4.2 GB of 16.0 GB, 26 %, 11.2 MB/s, 18 min left: vae/x.safetensors"
    assert in_words(Progress(0, 0, 0, None, "x")) == "0 bytes of 0 bytes, 0 %: x"


def test_ctrl_c_keeps_what_came_and_says_so(hub: StandIn, home: Path, say: Say) -> None:
    """On a terminal the line changes in place; Ctrl-C ends with 130 and the way to go on."""
    say("add", "brush", REPOSITORY)
    hub.hold_after = 1 << 20
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "underpaint_backend", "models", "pull", "brush"]
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as if this run were not in the background
    process = subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE)
    signal.signal(signal.SIGINT, ignored)
    os.close(theirs)
    try:
        assert hub.held.wait(30)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        said = b""
        with contextlib.suppress(OSError):  # how a terminal says that the other side is gone
            while piece := os.read(ours, 65536):
                said += piece
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
    text = said.decode()
    assert "\r" in text
    assert "of 3.2 MB" in text
    assert "underpaint models pull brush” goes on" in text
    assert "Traceback" not in text
    hub.hold_after = None
    hub.asked.clear()
    assert say("pull", "brush")[0] == 0
    assert hub.requests("cdn")[0].range == f"bytes={1 << 20}-"
