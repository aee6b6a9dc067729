"""Asks the servers that models come from, all through the one outbound door: by anybody, or with a team's credential.

Which module of `deployments.sources` knows a server is decided here; those modules are pure. Servers that an operator
configured may have private addresses, all others must be public.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import orjson
from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from deployments.sources import (
    RESOLVED,
    Ask,
    Reply,
    Scheme,
    Source,
    SourceCheck,
    SourceCode,
    SourceError,
    distribution,
    gs,
    https,
    huggingface,
    kubeflow,
    mlflow,
    parse,
    s3,
)
from deployments.sources.oci import parse_image
from portal.lib import outbound

SECONDS = 4.0
RESOLVED_SECONDS = 60
# The hub's own hosts, to which it redirects for files.
HUB_HOSTS = (".huggingface.co", ".hf.co")
# Entries of registries that name one another.
MOST_STEPS = 4
REGISTRIES = {Scheme.MLFLOW: "MLflow", Scheme.MODEL_REGISTRY: "model registry"}


@dataclass(frozen=True, repr=False)
class Keys:
    """What opens a source, in a worker's hands for moments; each kind of source uses its own part."""

    token: str = ""
    s3: s3.Access = s3.NOBODY
    login: tuple[str, str] | None = None


NOBODY = Keys()


@sensitive_variables("keys")
def check(
    source: Source, revision: str | None = None, keys: Keys = NOBODY, *, follow: bool = True
) -> SourceCheck | None:
    """What there is at an address, or why it cannot be used; None for what nobody outside the cluster can ask.

    Without `follow` an entry of a registry is only resolved: what it stands for takes keys that are not at hand.
    """
    return _check(source, revision, keys, (), follow)


def _check(
    source: Source, revision: str | None, keys: Keys, steps: tuple[str, ...], follow: bool
) -> SourceCheck | None:
    match source.scheme:
        case Scheme.HF:
            get = hub_get(keys.token)
            return huggingface.check(source.id, revision or source.revision, get, with_token=bool(keys.token))
        case Scheme.S3:
            ask = door(settings.OBJECT_STORES)
            return s3.check(source.container, source.path, ask, keys.s3)
        case Scheme.GS:
            ask, api = door([settings.GS_URL]), settings.GS_URL.rstrip("/")
            found = gs.check(source.container, source.path, ask, api=api, token=keys.token)
            # What the pods' own account may read nobody outside the cluster can say.
            unknown = settings.GS_SERVICE_ACCOUNT and not keys.token and found.code is SourceCode.GATED
            return None if unknown else found
        case Scheme.HTTPS:
            return https.check(source.uri, door(settings.DOWNLOAD_SERVERS, HUB_HOSTS))
        case Scheme.OCI:
            image = parse_image(source.uri)
            known = registries()
            if image.registry.lower() not in known:
                return None
            base = known[image.registry.lower()]
            return distribution.check(image, door([base] if base else ()), base=base, login=keys.login)
        case Scheme.MLFLOW | Scheme.MODEL_REGISTRY:
            return _resolved(source, keys, steps, follow)
    return None


def _resolved(source: Source, keys: Keys, steps: tuple[str, ...], follow: bool) -> SourceCheck:
    """Follow an entry of a registry to what it names, and look that up."""
    if source.uri in steps or len(steps) >= MOST_STEPS:
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"{steps[0]} leads round in a circle: {' → '.join((*steps, source.uri))[:300]}.",
            "Have its owner put the alias right, or name the artifact itself.",
        )
    server = settings.MLFLOW_URL if source.scheme is Scheme.MLFLOW else settings.MODEL_REGISTRY_URL
    if not server:
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"Slipway knows of no {REGISTRIES[source.scheme]} here.",
            "Name the artifact itself, or have an admin configure it.",
        )
    resolve = mlflow.resolve if source.scheme is Scheme.MLFLOW else kubeflow.resolve
    found = resolve(source.uri, door([server]), server)
    if not found.found:
        return found
    try:
        target = parse(found.loads)
    except SourceError as error:
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"{source.uri} is {found.loads[:200]}: {error.finding.message}",
            "Have its owner register an artifact that the cluster can load, as s3://… or gs://….",
        )
    looked = follow or target.scheme in {Scheme.HF, *RESOLVED}
    inner = _check(target, None, keys, (*steps, source.uri), follow) if looked else None
    if inner is None:
        return replace(found, loads=target.uri)
    return replace(inner, message=f"{found.message} {inner.message}", loads=inner.loads or target.uri)


def registries() -> dict[str, str]:
    """The registries of images that an operator named, each with its address where that is not HTTPS at the name."""
    found = {}
    for entry in settings.OCI_REGISTRIES:
        scheme, separator, host = entry.rstrip("/").partition("://")
        found[(host if separator else scheme).lower()] = entry.rstrip("/") if separator else ""
    return found


def listed_registries() -> tuple[str, ...]:
    """Where images with weights may come from: an operator's list, and the registries that are asked about tags."""
    return tuple(dict.fromkeys((*settings.SLIPWAY_OCI_REGISTRIES, *registries())))


def origins() -> tuple[str, ...]:
    """Servers of downloads and buckets that an operator configured, and that may have private addresses."""
    return (*settings.DOWNLOAD_SERVERS, *settings.OBJECT_STORES)


def why_inside(server: str) -> str:
    """Why the cluster is not sent to a server that people named; empty where it may be, and while nobody knows.

    Its name is resolved at most once a minute: a look before a transaction answers those within it.
    """
    return _why_inside(server, origins(), int(time.monotonic() // RESOLVED_SECONDS)) if server else ""


@lru_cache(maxsize=256)
def _why_inside(server: str, operator_origins: tuple[str, ...], minute: int) -> str:
    return outbound.why_forbidden(server, operator_origins=operator_origins)


def hub_get(token: str = "") -> huggingface.Get:
    """A hub's answers to paths, with a token where there is one."""
    ask = door([settings.HUB_URL], HUB_HOSTS)
    headers = {"Authorization": f"Bearer {token}"} if token else None
    return lambda path: ask(f"{settings.HUB_URL.rstrip('/')}{path}", headers=headers)


def door(operator_origins: Iterable[str] = (), redirect_hosts: Iterable[str] = ()) -> Ask:
    """The outbound door as sources use it: answers of every kind, and none where nobody answers."""
    origins, hosts = tuple(operator_origins), tuple(redirect_hosts)

    def ask(url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        try:
            answer = outbound.request(
                method, url, operator_origins=origins, redirect_hosts=hosts, headers=headers, seconds=SECONDS
            )
        except outbound.OutboundError as error:
            return Reply(0, error=error.message, forbidden=error.code == "forbidden")
        return Reply(answer.status, _json(answer.body), answer.headers, body=answer.body)

    return ask


def _json(body: bytes) -> object:
    """Decoded JSON, also with NaN and Infinity, which Python writes into configurations of models; None for none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
