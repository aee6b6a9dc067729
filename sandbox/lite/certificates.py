"""The certificates of the lite cluster: its authority's and its server's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox.certificates import Authority

_HOSTS = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1")


@dataclass(frozen=True)
class Certificates:
    """Paths of the PEM files."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def authority_pem(self) -> bytes:
        """The authority's certificate."""
        return self.authority.read_bytes()


def ensure(folder: Path) -> Certificates:
    """Return the certificates in `folder`, made now if they are not there."""
    authority = Authority(folder)
    server = authority.server("kube-apiserver", _HOSTS, file="server")
    return Certificates(authority.pair.certificate, server.certificate, server.key)
