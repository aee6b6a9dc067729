"""Weights that come from a place: fetched by KServe's storage initializer, or mounted from a volume claim.

The initializer asks buckets with the keys that it finds in the account of the pods. Without keys it still looks for
some, so a public bucket of S3 goes through a storage container of its own, which asks as anybody. KServe chooses a
storage container by name and by the form of the address; that of public buckets takes a form that nobody else writes.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from deployments.manifests.common import Platform, Wish, storage_uri
from deployments.sources.pinned import as_anybody

MODELS = "/mnt/models"
PORTS = {"http": 80, "https": 443}
# Where pods on GKE ask who they are, with and without its newer data plane.
IDENTITY_SERVERS = (("169.254.169.252", 988), ("169.254.169.254", 80))
# By this KServe's loader sends its requests to S3 unsigned.
ANYBODY = {"name": "awsAnonymousCredential", "value": "true"}
# “store.namespace”, or longer, as Services of a cluster are called.
_SERVICE = re.compile(r"[a-z0-9-]+\.(?P<namespace>[a-z0-9-]+)(?:\.svc(?:\.cluster\.local)?)?")


def predictor_of(wish: Wish) -> dict[str, Any]:
    """Which storage container an InferenceService fetches with; nothing for a claim, which is only mounted."""
    uri = storage_uri(wish)
    if uri.startswith("pvc://"):
        return {}
    return {"storageContainerName": public_container(wish) if _as_anybody(wish) else wish.platform.storage_container}


def address_of(wish: Wish) -> str:
    """The address as the initializer is given it."""
    uri = storage_uri(wish)
    return as_anybody(uri) if _as_anybody(wish) else uri


def public_container(wish: Wish) -> str:
    """The storage container that asks S3 as anybody."""
    return wish.platform.public_storage_container


def variables_of(wish: Wish) -> list[dict[str, Any]]:
    """What the initializer of an LLMInferenceService is told, which has no storage containers to choose from."""
    return [dict(ANYBODY)] if _as_anybody(wish) else []


def fetch_resources(platform: Platform) -> dict[str, Any]:
    """What a container that fetches weights takes: with the 1 GiB of KServe's own default large models are killed."""
    return {
        "requests": {"cpu": "100m", "memory": "100Mi"},
        "limits": {"cpu": "4", "memory": platform.fetch_memory},
    }


def model_arguments(wish: Wish) -> list[str]:
    """Where the engine finds the model: a folder, or the one file in it, whose tokenizer may lie beside it."""
    file, tokenizer = wish.resolution.file, wish.resolution.tokenizer
    if not file:
        return [f"--model={MODELS}"]
    found = [f"--model={MODELS}/{file}"]
    return [*found, f"--tokenizer={MODELS}"] if tokenizer else found


def google_account_of(wish: Wish) -> str:
    """The Google account that the pods read a bucket as, where they have no key for it; empty for other sources."""
    if wish.spec.source.credential is not None or not storage_uri(wish).startswith("gs://"):
        return ""
    return wish.platform.google_account.replace("{team}", wish.team)


def way_of_engines(wish: Wish) -> list[dict[str, Any]]:
    """The rule that lets engines' pods reach it, which fetch nothing where the weights were fetched ahead."""
    return [] if wish.resolution.claim_gib else way_to_store(wish)


def way_to_store(wish: Wish) -> list[dict[str, Any]]:
    """The rule of a NetworkPolicy that lets the initializer reach a server of the operator's own."""
    if google_account_of(wish):
        # Workload Identity: the node's own server of identities, which gives a pod no other than its own.
        return [
            {
                "to": [{"ipBlock": {"cidr": f"{address}/32"}}],
                "ports": [{"protocol": "TCP", "port": port}],
            }
            for address, port in IDENTITY_SERVERS
        ]
    if not wish.resolution.endpoint:
        return []
    parts = urlsplit(wish.resolution.endpoint)
    port = parts.port or PORTS.get(parts.scheme, 443)
    return [{"to": [_peer(parts.hostname or "")], "ports": [{"protocol": "TCP", "port": port}]}]


def _peer(host: str) -> dict[str, Any]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return {"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}
    if service := _SERVICE.fullmatch(host):
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": service["namespace"]}}}
    # A policy knows no names: any address but those of nodes themselves, at that one port.
    return {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["127.0.0.0/8", "169.254.0.0/16"]}}


def _as_anybody(wish: Wish) -> bool:
    return storage_uri(wish).startswith("s3://") and wish.spec.source.credential is None
