"""Reading a certificate that nobody has vouched for yet."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from underpaint_krita.certificates import Certificate, read_certificate

from tests.certificates import self_signed

DER = ssl.PEM_cert_to_DER_cert(
    """\
-----BEGIN CERTIFICATE-----
MIIBqTCCAU+gAwIBAgIUa1q5+hsPr/zQuKq54EBpAkzrDb0wCgYIKoZIzj0EAwIw
HzEPMA0GA1UECgwGU3R1ZGlvMQwwCgYDVQQDDANib3gwHhcNMjYxMTIzMDQyNTM5
WhcNMzYxMTIwMDQyNTM5WjAfMQ8wDQYDVQQKDAZTdHVkaW8xDDAKBgNVBAMMA2Jv
eDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOkHQ8O4n228+XGdvNqtzlbqb08Y
3Uy7gXR81PiO7xgjh7aHKKiv+sjxotLBP0VCTHXwzzKgVnfHRZrbmD08hNujaTBn
MB0GA1UdDgQWBBRcV5+OsL/FUgQY9b0LEOqZ4mfiezAfBgNVHSMEGDAWgBRcV5+O
sL/FUgQY9b0LEOqZ4mfiezAPBgNVHRMBAf8EBTADAQH/MBQGA1UdEQQNMAuCCWxv
Y2FsaG9zdDAKBggqhkjOPQQDAgNIADBFAiEAvmyjpfkIBGyTiLo+zxXEoJMm0cwA
6UIIVVoWfu4n0BACIH2E5wkaa/pglY3Y9V5VQOMDwGKBWBIojRXs4Q6ZLBm2
-----END CERTIFICATE-----
"""
)
"""Of the studio's “box”, until 2036."""


def test_whom_it_names_and_until_when() -> None:
    """The common name, wherever it stands among the others, and the day after which nobody accepts it."""
    read = read_certificate(DER, trusted=False, problem="why")
    assert (read.subject, read.not_after) == ("box", datetime(2036, 11, 20, 4, 25, 39, tzinfo=UTC))
    assert (read.trusted, read.problem) == (False, "why")
    assert read.fingerprint.startswith("9cc9d8e7")


@pytest.mark.parametrize("days", [1, 3650, 36500])
def test_an_end_in_either_way_of_writing_it(tmp_path: Path, days: int) -> None:
    """Years before 2050 are written with two digits, later ones with four."""
    der = ssl.PEM_cert_to_DER_cert(self_signed(tmp_path, days=days).certificate.read_text())
    end = read_certificate(der, trusted=False).not_after
    assert end is not None
    assert abs(end - datetime.now(UTC) - timedelta(days=days)) < timedelta(hours=1)


def test_a_fingerprint_is_shown_in_groups() -> None:
    """Four lines that an eye can compare."""
    groups = Certificate("0123456789abcdef" * 4).groups
    assert groups == "\n".join(["0123 4567 89AB CDEF"] * 4)


@pytest.mark.parametrize(
    ("name", "shown"), [(b"b\nx", "b x"), (b"\n\n\n", ""), (b"\xff\xfe\x00", "��"), (b"<b>", "<b>")]
)
def test_a_strangers_name_stays_on_one_line(name: bytes, shown: str) -> None:
    """It is shown in our question, so it must not look like more of it."""
    assert read_certificate(DER.replace(b"\x0c\x03box", b"\x0c\x03" + name), trusted=False).subject == shown


@given(st.data())
def test_a_damaged_certificate_is_read_as_far_as_it_goes(data: st.DataObject) -> None:
    """No bytes upset the reader; it has a fingerprint in any case."""
    whole = bytearray(DER)
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert len(read_certificate(cut, trusted=False).fingerprint) == 64


@given(st.binary())
def test_what_is_no_certificate_says_nothing(garbage: bytes) -> None:
    """Neither a name nor an end."""
    assert read_certificate(garbage, trusted=False).not_after is None
