"""The daemon's own certificate, for those who do not put a web server in front of it."""

from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class BadCertificate(Exception):
    """A certificate or key that cannot be used; its text says why and what to do."""


class _Locked(Exception):
    """The key asked for a passphrase."""


def server_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """The encryption with a PEM `certificate` and its `key`, which may be in the same file.

    Raises `BadCertificate`.
    """
    _readable(certificate, "certificate")
    if key is not None:
        _readable(key, "key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, _refuse_to_ask)
    except _Locked:
        locked = key or certificate
        raise BadCertificate(
            f"the key {locked} is locked with a passphrase. Unlock it: openssl pkey -in {locked} -out unlocked.pem"
        ) from None
    except OSError as error:  # which every error of OpenSSL is, too
        raise BadCertificate(_reason(certificate, key, error)) from None
    return context


def fingerprint(certificate: Path) -> str:
    """The SHA-256 of the first certificate in a PEM file, in groups as the plugin shows it: `AB12 CD34 ...`."""
    text = certificate.read_text(encoding="ascii", errors="replace")
    first = text[text.index(BEGIN) : text.index(END) + len(END)]
    digits = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest().upper()
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _readable(file: Path, what: str) -> None:
    """OpenSSL does not say which of two files it could not read, so that is found out first."""
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise BadCertificate(f"the {what} {file} cannot be read: {os.strerror(error.errno or 0)}") from None


def _refuse_to_ask() -> str:
    """A daemon has nobody at its keyboard."""
    raise _Locked


def _reason(certificate: Path, key: Path | None, error: OSError) -> str:
    if BEGIN.encode() not in certificate.read_bytes():
        return f"{certificate} holds no certificate in PEM form, which begins with {BEGIN}"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"the key {key or certificate} belongs to another certificate than {certificate}"
    if key is None:
        return f"{certificate} holds no key. Name the file that does with --tls-key"
    return f"the certificate {certificate} with the key {key} cannot be used: {error.strerror or error}"
