"""Certificates and keys that can be used, and those that cannot."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from underpaint_backend.server.access.tls import BadCertificate, fingerprint, server_context

from tests.certificates import Pair, openssl, self_signed


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


def test_a_certificate_with_its_key_is_used(pair: Pair) -> None:
    """In two files, as most programs write them."""
    assert server_context(pair.certificate, pair.key).protocol == ssl.PROTOCOL_TLS_SERVER


def test_both_may_be_in_one_file(pair: Pair) -> None:
    """Then the key need not be named."""
    pair.certificate.write_text(pair.key.read_text() + pair.certificate.read_text())
    server_context(pair.certificate, None)


def test_the_fingerprint_is_in_groups(pair: Pair) -> None:
    """The same digits as everywhere, so that a person can compare them."""
    words = fingerprint(pair.certificate).split(" ")
    assert [len(word) for word in words] == [4] * 16
    assert "".join(words).lower() == pair.fingerprint


def test_a_certificate_without_its_key_is_refused(pair: Pair) -> None:
    """With the option that was forgotten."""
    with pytest.raises(BadCertificate, match="Name the file that does with --tls-key"):
        server_context(pair.certificate, None)


def test_the_key_of_another_is_refused(pair: Pair, tmp_path: Path) -> None:
    """With both names, because one of them is the wrong one."""
    with pytest.raises(BadCertificate, match=r"other\.key belongs to another certificate than .*box\.crt"):
        server_context(pair.certificate, self_signed(tmp_path, "other").key)


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_file_that_cannot_be_read_is_named(pair: Pair, missing: str) -> None:
    """OpenSSL's own words do not say which of the two it was."""
    file: Path = getattr(pair, missing)
    file.unlink()
    with pytest.raises(BadCertificate, match=f"the {missing} {file} cannot be read: No such file"):
        server_context(pair.certificate, pair.key)


def test_a_folder_is_no_key(pair: Pair, tmp_path: Path) -> None:
    """Nor anything else that cannot be read."""
    with pytest.raises(BadCertificate, match="cannot be read: Is a directory"):
        server_context(pair.certificate, tmp_path)


def test_what_is_no_certificate_is_refused(pair: Pair) -> None:
    """Such as the two files in the wrong order."""
    with pytest.raises(BadCertificate, match=r"box\.key holds no certificate in PEM form"):
        server_context(pair.key, pair.certificate)


@pytest.mark.parametrize("damage", ["", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_refused(pair: Pair, damage: str) -> None:
    """In one sentence."""
    pair.key.write_text(damage)
    with pytest.raises(BadCertificate, match="cannot be used"):
        server_context(pair.certificate, pair.key)


def test_nobody_is_asked_for_a_passphrase(pair: Pair) -> None:
    """A daemon has no keyboard; the command that unlocks the key is said instead."""
    locked = pair.key.with_name("locked.pem")
    openssl("pkey", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", locked)
    with pytest.raises(BadCertificate, match=f"openssl pkey -in {locked}"):
        server_context(pair.certificate, locked)
