"""A server whose certificate nobody vouches for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from underpaint_backend.launch import Launched, launched
from underpaint_protocol.errors import describe

from tests.certificates import Pair, self_signed

from .conftest import PICTURES, use_server
from .launch import Krita, Performance


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def own(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A daemon that speaks TLS."""
    words = ("--threads", "1", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
    with launched(tmp_path_factory.mktemp("underpaint"), *words) as running:
        use_server(running.home, running.url)
        yield running


@pytest.fixture(scope="module")
def seen(krita: Krita, own: Launched, tmp_path_factory: pytest.TempPathFactory) -> Performance:
    """What happened in Krita."""
    environment = {"UNDERPAINT_HOME": str(own.home), "UNDERPAINT_PICTURES": str(PICTURES)}
    performance = krita.play("trust", tmp_path_factory.mktemp("trust"), environment)
    assert performance.errors == [], performance.output
    return performance


def test_the_artist_is_asked(seen: Performance, pair: Pair) -> None:
    """With the fingerprint, to compare it with the daemon's."""
    assert "".join(seen.facts["fingerprint"].split()).lower() == pair.fingerprint


def test_a_no_is_a_sentence(seen: Performance) -> None:
    """Nothing is connected."""
    assert seen.facts["refused"]["boxes"] == []
    assert seen.facts["refused"]["state"].startswith("Nobody known to this machine vouches for the certificate")


def test_a_yes_is_remembered(seen: Performance, own: Launched, pair: Pair) -> None:
    """There is a connection, a picture, and a pin for this one server."""
    assert seen.facts["trusted"]["boxes"] == []
    assert seen.facts["painted"].startswith("Done")
    assert json.loads((own.home / "krita.json").read_text())["pins"] == {own.url: pair.fingerprint}


def test_another_certificate_is_refused_loudly(
    krita: Krita, own: Launched, seen: Performance, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And nobody is asked: this is what an attack looks like."""
    home: Path = tmp_path_factory.mktemp("changed")
    settings = {"server": own.url, "tokens": {own.url: own.token}, "pins": {own.url: "0" * 64}}
    (home / "krita.json").write_text(json.dumps(settings))
    environment = {"UNDERPAINT_HOME": str(home), "UNDERPAINT_CHANGED": "1"}
    performance = krita.play("trust", tmp_path_factory.mktemp("trust"), environment)
    assert performance.errors == [], performance.output
    assert performance.facts["changed"]["boxes"] == []
    sentence = describe("certificate_changed", detail="127.0.0.1").message
    assert performance.facts["changed"]["state"].startswith(sentence)
