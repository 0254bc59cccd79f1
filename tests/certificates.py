"""A private certificate authority, made anew by the `openssl` command for each run of the tests, and contexts that use it.

Invariants
1. Nothing here is valid anywhere else: the authority's key is forgotten with the folder of the run.
2. The server's certificate is for `localhost` and 127.0.0.1 only.
"""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

CERTIFICATES = {"server": "subjectAltName=DNS:localhost,IP:127.0.0.1", "client": "subjectAltName=DNS:client.example"}


@dataclass(frozen=True)
class Authority:
    """Where the files are: `ca.pem`, and for each name of CERTIFICATES a file with certificate and key."""

    folder: Path

    def server_context(self, name: str = "server") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem")
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path) -> Authority:
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subject = ("-subj", "/CN=ioxide test authority")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(folder, "req", "-x509", *new_key, *subject, *usage, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    for name, alternative in CERTIFICATES.items():
        openssl(folder, "req", *new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid"
        (folder / f"{name}.ext").write_text(f"{alternative}\n{identifiers}\n")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.crt", "-days", "2")
        (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())
    return Authority(folder)
