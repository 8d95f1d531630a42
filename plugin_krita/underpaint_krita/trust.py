"""Whether a server is the one that it says it is, before anything is sent there. Knows nothing of Qt.

A certificate that this machine's authorities vouch for is trusted. Any other one is shown to the artist on first use,
and the answer is a pin: from then on, the server must show that very certificate. The pin decides alone then, also over
the authorities, so that nobody slips in with a certificate that somebody else vouches for.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import Any, Optional, Tuple
from urllib.parse import urlsplit

from ._vendor.underpaint_protocol.errors import ErrorInfo, describe
from .certificates import Certificate, fingerprint_of, read_certificate

SECURE = "wss"
DEFAULT_PORTS = {SECURE: 443, "ws": 80}
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, Alpine
)
"""Where systems keep whom they trust. Krita brings an OpenSSL along that was built to look elsewhere."""


class CertificateChanged(ssl.SSLError):
    """The server shows another certificate than the one that is pinned; its `fingerprint` is that of the new one."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__("the certificate is not the one that was trusted")
        self.fingerprint = fingerprint


class _PinnedContext(ssl.SSLContext):
    """Encryption with whoever has the one certificate of `pin`."""

    pin = ""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Encrypt a socket and look at the certificate, which comes before the first byte can be sent."""
        wrapped = super().wrap_socket(*arguments, **options)
        try:
            shown = fingerprint_of(wrapped.getpeercert(binary_form=True) or b"")
            if shown != self.pin:
                raise CertificateChanged(shown)
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def context_for(server: str, pinned: Optional[str]) -> Optional[ssl.SSLContext]:
    """The encryption for the connection that will carry the token; None for a server without any (`ws://`).

    Its handshake, which comes before the HTTP request, raises `ssl.SSLCertVerificationError` if nobody vouches for
    the certificate and none is pinned, and `CertificateChanged` if another one is `pinned` (a fingerprint). Nothing
    of ours was sent then; `refusal` has the sentence.
    """
    if urlsplit(server).scheme != SECURE:
        return None
    if pinned is None:
        return _vouched_for()
    context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.pin = pinned.lower()
    return _unverified(context)


def refusal(error: BaseException, server: str) -> Optional[ErrorInfo]:
    """The error for the artist, if connecting failed because of the certificate; None if it was something else.

    After `unknown_certificate` the artist can be asked, with what `probe` finds; after `certificate_changed` nobody
    is asked, because this is what an attack looks like.
    """
    if isinstance(error, CertificateChanged):
        return describe("certificate_changed", detail=_place(server)[0])
    if isinstance(error, ssl.SSLCertVerificationError):
        return describe("unknown_certificate", detail=_place(server)[0])
    return None


def probe(server: str, timeout: float) -> Certificate:
    """The certificate that `server` (`wss://`) shows now, without sending it anything but the beginning of TLS.

    `timeout` is in seconds and holds for each wait. Raises `OSError` if nothing answers there or no TLS is spoken,
    and `ValueError` if `server` is no address.
    """
    try:
        return read_certificate(_shown(server, _vouched_for(), timeout), trusted=True)
    except ssl.SSLCertVerificationError as error:
        # Python hands out no certificate that it refused, so it is asked for once more.
        unverified = _unverified(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return read_certificate(_shown(server, unverified, timeout), trusted=False, problem=error.verify_message)


def _shown(server: str, context: ssl.SSLContext, timeout: float) -> bytes:
    host, port = _place(server)
    with contextlib.closing(socket.create_connection((host, port), timeout)) as plain:
        encrypted = context.wrap_socket(plain, server_hostname=host)
    with contextlib.closing(encrypted):
        return encrypted.getpeercert(binary_form=True) or b""


def _vouched_for() -> ssl.SSLContext:
    """Accepts what the authorities of this machine vouch for, under the right name and until it expires."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ssl.get_default_verify_paths().cafile is None:
        for file in filter(os.path.isfile, AUTHORITIES):
            context.load_verify_locations(file)
            break
    return context


def _unverified(context: ssl.SSLContext) -> ssl.SSLContext:
    """Accepts whatever is shown; that the server has its key is proven all the same."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _place(server: str) -> Tuple[str, int]:
    """Host and port of a server's address. Raises `ValueError` if it has none."""
    parts = urlsplit(server)
    if not parts.hostname or parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"{server} is no address of a server")
    return parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
