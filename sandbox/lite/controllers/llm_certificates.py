"""The self-signed certificate KServe keeps for the pods of an LLMInferenceService.

Made again when a name or an address of a pod is not in it, or four fifths of its ten years are over. An elliptic key
stands in for KServe's RSA of 4096 bits, which takes seconds to make.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.client import Obj
from sandbox.lite.controllers.llm_config import workload_service
from sandbox.lite.controllers.llm_template import child_name
from sandbox.lite.controllers.llm_workloads import labels, metadata
from sandbox.lite.controllers.meta import annotations_of, parse_stamp, stamp

EXPIRATION = "certificates.kserve.io/expiration"
LIFETIME = timedelta(days=3650)
RENEW = LIFETIME / 5


def secret_name(service: Obj) -> str:
    """Return the name of the Secret."""
    return child_name(service["metadata"]["name"], "-kserve-self-signed-certs")


def names(service: Obj, picker: str | None) -> list[str]:
    """Return the DNS names of a service; `picker` is the Service of its endpoint picker."""
    namespace = service["metadata"]["namespace"]
    found = ["localhost"]
    for name in (workload_service(service), *([picker] if picker else [])):
        found += [f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]
    return sorted(found)


def addresses(pods: Iterable[Obj], services: Iterable[Obj]) -> list[str]:
    """Return every address a service answers on."""
    found = {"127.0.0.1"}
    for pod in pods:
        found.add((pod.get("status") or {}).get("podIP") or "")
    for item in services:
        found.update(item["spec"].get("clusterIPs") or [])
    return sorted(address for address in found if address not in ("", "None"))


def secret(service: Obj, known: Obj | None, hosts: list[str], ips: list[str], moment: datetime) -> Obj:
    """Return the Secret: the known one's certificate while it serves, else with a new one."""
    data = (known or {}).get("data") or {}
    if not _serves(known, hosts, ips, moment):
        data = _made(hosts, ips, moment)
    meta = metadata(service, secret_name(service), labels(service))
    meta["annotations"] = {EXPIRATION: stamp(moment + LIFETIME - RENEW)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "kubernetes.io/tls", "data": data}


def _serves(known: Obj | None, hosts: list[str], ips: list[str], moment: datetime) -> bool:
    if known is None:
        return False
    expires = annotations_of(known).get(EXPIRATION)
    try:
        certificate = x509.load_pem_x509_certificate(base64.b64decode(known["data"]["tls.crt"]))
        base64.b64decode(known["data"]["tls.key"], validate=True)
        there = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        expired = expires is not None and parse_stamp(expires) < moment
    except (KeyError, ValueError, x509.ExtensionNotFound):
        return False
    known_ips = {str(address) for address in there.get_values_for_type(x509.IPAddress)}
    return not expired and set(hosts) <= set(there.get_values_for_type(x509.DNSName)) and set(ips) <= known_ips


def _made(hosts: list[str], ips: list[str], moment: datetime) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Kserve Self Signed")])
    names_in = [*map(x509.DNSName, hosts), *(x509.IPAddress(ipaddress.ip_address(address)) for address in ips)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment)
        .not_valid_after(moment + LIFETIME + RENEW)
        .add_extension(x509.SubjectAlternativeName(names_in), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    parts = {"tls.crt": pem, "tls.key": private, "ca.crt": pem}
    return {name: base64.b64encode(part).decode() for name, part in parts.items()}
