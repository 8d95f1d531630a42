"""What is in a server's certificate. Python reads it only after somebody vouched for it; the artist is asked before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Iterator, Optional, Tuple

UTC_TIME, VERSION = 0x17, 0xA0
COMMON_NAME = b"\x55\x04\x03"
"""2.5.4.3, as DER writes it."""
LONGEST_NAME = 64
"""Characters, as RFC 5280 has it; a longer one would push the question out of the window."""

Element = Tuple[int, bytes]
"""A tag and what it holds, of DER: ITU-T X.690."""


@dataclass(frozen=True)
class Certificate:
    """What a server shows.

    `fingerprint` is the SHA-256 of all of it, 64 hexadecimal digits; `subject` is whom it names, as it says itself;
    `not_after` is when it expires; `trusted` is whether this machine's authorities vouch for it, for this server and
    now; if not, `problem` says why, in OpenSSL's words. `subject` is empty and `not_after` None if they are not there.
    """

    fingerprint: str
    subject: str = ""
    not_after: Optional[datetime] = None
    trusted: bool = False
    problem: str = ""

    @property
    def groups(self) -> str:
        """The fingerprint for the eye: four lines of four groups of four digits, in the order of the daemon's log."""
        digits = self.fingerprint.upper()
        words = [digits[start : start + 4] for start in range(0, len(digits), 4)]
        return "\n".join(" ".join(words[start : start + 4]) for start in range(0, len(words), 4))


def fingerprint_of(der: bytes) -> str:
    """The SHA-256 of a certificate in DER form, 64 hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


def read_certificate(der: bytes, trusted: bool, problem: str = "") -> Certificate:
    """What a certificate in DER form says; whatever cannot be read is left empty."""
    try:
        validity, subject = _fields(der)
        name, end = _common_name(subject), _end(validity)
    except (ValueError, IndexError, StopIteration):
        name, end = "", None
    return Certificate(fingerprint_of(der), name, end, trusted, problem)


def _fields(der: bytes) -> Tuple[bytes, bytes]:
    """The validity and the subject, as they follow each other in RFC 5280, section 4.1."""
    (_, certificate), *_ = _elements(der)
    (_, signed), *_ = _elements(certificate)
    fields = [content for tag, content in _elements(signed) if tag != VERSION]
    _serial, _algorithm, _issuer, validity, subject = fields[:5]
    return validity, subject


def _elements(der: bytes) -> Iterator[Element]:
    """The elements that follow each other in `der`. Raises `IndexError` or `ValueError` if it is cut off."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            digits = size & 0x7F
            size, at = int.from_bytes(der[at : at + digits], "big"), at + digits
        if at + size > len(der):
            raise ValueError("an element is longer than what it is in")
        yield tag, der[at : at + size]
        at += size


def _common_name(subject: bytes) -> str:
    for _, attributes in _elements(subject):
        for _, attribute in _elements(attributes):
            (_, kind), (_, value), *_ = _elements(attribute)
            if kind == COMMON_NAME:
                return _harmless(value.decode("utf-8", "replace"))
    return ""


def _harmless(name: str) -> str:
    """A stranger's words on one line of bounded length."""
    return "".join(character if character.isprintable() else " " for character in name)[:LONGEST_NAME].strip()


def _end(validity: bytes) -> datetime:
    _, (tag, digits) = _elements(validity)
    text = digits.decode("ascii")
    if tag == UTC_TIME:  # two digits for the year, of which 50 and more are of the last century
        text = ("20" if text[:2] < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
