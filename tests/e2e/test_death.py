"""Krita is killed in the middle of a job: its picture is there when it is started again."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from underpaint_backend.launch import Launched, launched

from .conftest import PHOTOGRAPHS, PICTURES, use_server
from .launch import Krita, Performance

PROMPT = "a blue circle"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A daemon whose pictures nobody else collects."""
    with launched(tmp_path_factory.mktemp("underpaint"), "--threads", "1") as running:
        use_server(running.home, running.url)
        yield running


def play(
    krita: Krita, own: Launched, folder: Path, scenario: str, photograph: str | None = "coffee.jpg"
) -> Performance:
    """Play a scenario with that daemon."""
    environment = {
        "UNDERPAINT_HOME": str(own.home),
        "UNDERPAINT_PICTURES": str(PICTURES),
        "UNDERPAINT_PROMPT": PROMPT,
        **({"UNDERPAINT_PHOTOGRAPH": str(PHOTOGRAPHS / photograph)} if photograph else {}),
    }
    return krita.play(scenario, folder, environment)


@pytest.fixture(scope="module")
def dead(krita: Krita, own: Launched, tmp_path_factory: pytest.TempPathFactory) -> Performance:
    """A Krita that was killed."""
    return play(krita, own, tmp_path_factory.mktemp("death"), "death")


@pytest.fixture(scope="module")
def remembered(dead: Performance, own: Launched) -> bytes:
    """What it left behind."""
    file = own.home / "krita-jobs.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file.read_bytes()


@pytest.fixture(scope="module")
def with_document(
    krita: Krita, own: Launched, remembered: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Performance:
    """The next Krita, in which the document is opened."""
    performance = play(krita, own, tmp_path_factory.mktemp("again"), "afterlife")
    assert performance.errors == [], performance.output
    return performance


@pytest.fixture(scope="module")
def without_document(
    krita: Krita, own: Launched, with_document: Performance, tmp_path_factory: pytest.TempPathFactory
) -> Performance:
    """One more that dies, and one after it in which nothing is opened."""
    play(krita, own, tmp_path_factory.mktemp("second"), "death")
    performance = play(krita, own, tmp_path_factory.mktemp("third"), "afterlife", photograph=None)
    assert performance.errors == [], performance.output
    return performance


def test_krita_died_in_the_middle(dead: Performance) -> None:
    """Its layer was growing."""
    assert dead.status == -signal.SIGKILL
    assert dead.facts["layers"] == [["Background", False], [f"{PROMPT}…", True]]


def test_the_job_was_written_down(remembered: bytes) -> None:
    """Session, prompt and place, but no pixels."""
    (kept,) = json.loads(remembered).values()
    (job,) = kept["jobs"].values()
    assert job["request"]["prompt"] == PROMPT
    assert job["place"]["document"].endswith("coffee.jpg")
    assert len(remembered) < 4096


def test_the_picture_becomes_a_layer_of_its_document(with_document: Performance) -> None:
    """At its place, with its name and its recipe, and the docker says so."""
    facts = with_document.facts
    assert facts["layers"] == [["Background", False], [PROMPT, False]]
    x, y, width, height = facts["bounds"]
    assert 120 <= x <= 160
    assert 30 <= y <= 70
    assert 230 <= width <= 300
    assert 230 <= height <= 300
    assert json.loads(facts["recipes"][0])["prompt"] == PROMPT
    assert facts["notice"] == f"The picture “{PROMPT}” was finished meanwhile and is in a layer of its own now."


def test_without_its_document_the_picture_is_a_file(without_document: Performance, own: Launched) -> None:
    """With its alpha and its recipe; the docker says where."""
    (file,) = (own.home / "recovered").iterdir()
    assert without_document.facts["notice"].endswith(f"so it is kept in {file}")
    with Image.open(file) as picture:
        pixels = np.asarray(picture)
        assert json.loads(picture.info["underpaint"])["prompt"] == PROMPT
    assert pixels.shape[2] == 4
    assert pixels[..., 3].min() == 0
    assert pixels[..., 3].max() == 255
    red, green, blue, _ = pixels[pixels[..., 3] == 255].mean(axis=0)
    assert blue > max(red, green)


def test_a_notice_goes_with_the_next_picture(without_document: Performance) -> None:
    """It was read by then."""
    assert not without_document.facts["notice_after_generate"]


def test_what_is_safe_is_forgotten(without_document: Performance, own: Launched) -> None:
    """Nothing is recovered twice."""
    (kept,) = json.loads((own.home / "krita-jobs.json").read_bytes()).values()
    assert kept["jobs"] == {}
