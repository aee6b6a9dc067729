"""A certificate authority of the cluster's own, made once in a folder, and the certificates it signs."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS = timedelta(days=3650)


@dataclass(frozen=True)
class Pair:
    """Paths of a certificate and its private key, both PEM."""

    certificate: Path
    key: Path

    def exists(self) -> bool:
        """True when both files are there."""
        return self.certificate.exists() and self.key.exists()


class Authority:
    """Signs certificates with the key in `folder`; keys are readable by their owner alone."""

    def __init__(self, folder: Path, *, name: str = "slipway-sandbox-ca") -> None:
        self.pair = Pair(folder / "ca.crt", folder / "ca.key")
        self._folder = folder
        if not self.pair.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_authority(self.pair, name)

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self.pair.certificate.read_bytes()

    def server(self, name: str, hosts: Sequence[str], *, file: str = "", calls_itself: bool = False) -> Pair:
        """A server's certificate for DNS names and addresses, made now unless it is there."""
        more = [ExtendedKeyUsageOID.CLIENT_AUTH] if calls_itself else []
        return self._leaf(file or name, name, "", hosts, [ExtendedKeyUsageOID.SERVER_AUTH, *more])

    def client(self, name: str, group: str = "", *, file: str = "") -> Pair:
        """A client's certificate: user `name` of `group`, as Kubernetes reads subjects."""
        return self._leaf(file or name, name, group, (), [ExtendedKeyUsageOID.CLIENT_AUTH])

    def _leaf(
        self, file: str, name: str, group: str, hosts: Sequence[str], usages: Sequence[x509.ObjectIdentifier]
    ) -> Pair:
        pair = Pair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        issuer = x509.load_pem_x509_certificate(self.pem)
        if pair.exists() and _signed_by(issuer, pair):
            return pair
        signer = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(name, group), issuer.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        _write_pair(pair, key, builder.sign(signer, hashes.SHA256()))
        return pair


def own_context(name: str, host: str) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody else knows, as a kubelet makes itself one."""
    with tempfile.TemporaryDirectory(prefix="slipway-tls-") as folder:
        pair = Authority(Path(folder)).server(name, (host,))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def signing_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A key pair for signing tokens, as (private, public) PEM files; made now unless it is there."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    if not (private.exists() and public.exists()):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write_private(private, key)
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return private, public


def _signed_by(issuer: x509.Certificate, pair: Pair) -> bool:
    try:
        x509.load_pem_x509_certificate(pair.certificate.read_bytes()).verify_directly_issued_by(issuer)
    except (ValueError, InvalidSignature):
        return False  # of an authority that was here before
    return True


def _write_authority(pair: Pair, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_name(name), _name(name), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(pair, key, certificate)


def _write_pair(pair: Pair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    _write_private(pair.key, key)
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if group:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(parts)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _YEARS)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
