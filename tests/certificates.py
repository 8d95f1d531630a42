"""Certificates as a person makes them: with the `openssl` command line."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

OPENSSL = shutil.which("openssl")
NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, 64 hexadecimal digits."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()

    def server_context(self) -> ssl.SSLContext:
        """For a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def self_signed(folder: Path, name: str = "box", *, names: str = NAMES, days: int = 30) -> Pair:
    """A certificate that vouches for itself."""
    pair = _pair(folder, name)
    about = ("-days", str(days), "-subj", f"/CN={name}", "-addext", names)
    openssl("req", "-x509", *_new_key(pair), *about, "-out", pair.certificate)
    return pair


def signed(folder: Path, authority: Pair, name: str, *, names: str = NAMES, expired: bool = False) -> Pair:
    """A certificate that `authority` vouches for, or did until it expired."""
    pair, request, extensions = _pair(folder, name), folder / f"{name}.csr", folder / f"{name}.ext"
    openssl("req", *_new_key(pair), "-subj", f"/CN={name}", "-out", request)
    extensions.write_text(names)
    openssl(
        *("ca", "-batch", "-config", _authority_settings(folder), "-in", request, "-out", pair.certificate, "-notext"),
        *("-cert", authority.certificate, "-keyfile", authority.key, "-extfile", extensions),
        *(("-startdate", "20200101000000Z", "-enddate", "20210101000000Z") if expired else ("-days", "30")),
    )
    return pair


def openssl(*words: str | Path) -> None:
    """Run `openssl`; the test is skipped where there is none."""
    if OPENSSL is None:
        pytest.skip("certificates are made with openssl, which is not on this machine: apt install openssl")
    subprocess.run([OPENSSL, *map(str, words)], check=True, capture_output=True)


def _pair(folder: Path, name: str) -> Pair:
    return Pair(folder / f"{name}.crt", folder / f"{name}.key")


def _new_key(pair: Pair) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", pair.key)


def _authority_settings(folder: Path) -> Path:
    """What `openssl ca` wants to have in files."""
    index, settings = folder / "index.txt", folder / "ca.cnf"
    index.touch()
    settings.write_text(
        f"[ca]\ndefault_ca = all\n[all]\ndatabase = {index}\nnew_certs_dir = {folder}\ndefault_md = sha256\n"
        "rand_serial = yes\npolicy = any\nunique_subject = no\n[any]\ncommonName = supplied\n"
    )
    return settings
