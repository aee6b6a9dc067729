"""Addresses of model weights: told apart by scheme, read strictly, never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import unquote

from deployments.findings import Finding, error, warning
from deployments.sources import places
from deployments.sources.oci import parse_image
from deployments.spec import NO_REVISION, REVISION, hazard

POINTER = "/spec/source/uri"
PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
HF = re.compile(rf"hf://(?P<owner>{PART})/(?P<model>{PART})(?::(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")
BARE_HF = re.compile(rf"(?P<id>{PART}/{PART})/?")
# Pages that people copy the address of: a model, a folder or file of it at a revision, its history.
HF_PAGE = re.compile(
    rf"https?://(?P<host>(?:www\.)?huggingface\.co|hf\.co)/(?P<id>{PART}/{PART})"
    r"(?:/(?P<kind>tree|blob|resolve|raw|commits?)/(?P<revision>[^/?#]+)(?:/(?P<path>[^?#]*))?|/discussions[^?#]*)?"
    r"/?(?P<query>[?#].*)?"
)
HUB, MAIN = "huggingface.co", "main"


class Scheme(StrEnum):
    """The kinds of sources Slipway can tell apart."""

    HF = "hf"
    S3 = "s3"
    GS = "gs"
    PVC = "pvc"
    OCI = "oci"
    HTTPS = "https"
    MLFLOW = "models"
    MODEL_REGISTRY = "model-registry"


# Entries that stand for something else; they are asked first for an address of the other kinds.
RESOLVED = frozenset({Scheme.MLFLOW, Scheme.MODEL_REGISTRY})
EXAMPLES = {
    Scheme.S3: "s3://bucket/models/qwen2.5-7b",
    Scheme.GS: "gs://bucket/models/qwen2.5-7b",
    Scheme.PVC: "pvc://claim/qwen2.5-7b",
    Scheme.OCI: f"oci://registry.example.com/models/granite@sha256:{'0123456789abcdef' * 4}",
    Scheme.HTTPS: "https://files.example.com/qwen2.5-7b.tar.gz",
    Scheme.MLFLOW: "models:/chat/3 or models:/chat@production",
    Scheme.MODEL_REGISTRY: "model-registry://chat/v3",
}


@dataclass(frozen=True)
class Source:
    """A model's address, taken apart. `id` is what people call the model."""

    scheme: Scheme
    uri: str
    id: str
    revision: str | None = None

    @property
    def container(self) -> str:
        """The bucket or volume claim that it lies in; of a download the host."""
        return self.id.partition("/")[0]

    @property
    def path(self) -> str:
        """Where in it, without slashes around; empty for all of it."""
        return self.id.partition("/")[2]


class SourceError(ValueError):
    """An address that cannot be read; carries the finding for the form."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.message)


@lru_cache(maxsize=512)
def parse(uri: str) -> Source:
    """Take an address apart; raises SourceError with what to write instead."""
    if reason := hazard(uri):
        raise SourceError(error("source_unsafe", POINTER, f"The address {reason}."))
    if any(char.isspace() or ord(char) > 0x7E for char in uri):
        raise SourceError(error("source_form", POINTER, "The address may not contain spaces or accents."))
    if uri.startswith("models:/"):
        return _parse_place(Scheme.MLFLOW, uri)
    scheme, separator, _ = uri.partition("://")
    if not separator:
        raise SourceError(_no_scheme(uri))
    if (match := HF_PAGE.fullmatch(uri)) and (page := _of_page(match)) is not None:
        raise SourceError(page)
    if scheme == "docker" and _names_image(uri.removeprefix("docker://")):
        raise SourceError(_proposed(f"oci://{uri.removeprefix('docker://')}"))
    try:
        # The door decides which servers may be asked without TLS.
        kind = Scheme.HTTPS if scheme == "http" else Scheme(scheme)
    except ValueError:
        known = ", ".join(f"{item.value}:/{'' if item is Scheme.MLFLOW else '/'}" for item in Scheme)
        raise SourceError(
            error("source_scheme", POINTER, f"“{scheme[:20]}://” is not a known kind of source.", f"Known: {known}.")
        ) from None
    if kind is Scheme.HF:
        return _parse_hf(uri)
    if kind is Scheme.OCI:
        return _parse_oci(uri)
    return _parse_place(kind, uri)


def check_uri(uri: str) -> list[Finding]:
    """Findings about an address alone: how it is written."""
    try:
        source = parse(uri)
    except SourceError as failure:
        return [failure.finding]
    if source.scheme is Scheme.HF and source.revision:
        return [
            warning(
                "source_revision",
                POINTER,
                f"The address itself names the revision “{source.revision}”.",
                "Better: leave it out here and fill in the field revision.",
            )
        ]
    return []


def _parse_hf(uri: str) -> Source:
    match = HF.fullmatch(uri)
    if match is None:
        raise SourceError(
            error(
                "source_form",
                POINTER,
                "A model of the hub is written hf://owner/model, with two names and no folder.",
                "Example: hf://Qwen/Qwen2.5-7B-Instruct",
            )
        )
    return Source(Scheme.HF, uri, f"{match['owner']}/{match['model']}", match["revision"])


def _parse_oci(uri: str) -> Source:
    try:
        image = parse_image(uri)
    except ValueError as failure:
        example = f"Example: {EXAMPLES[Scheme.OCI]}"
        raise SourceError(error("source_form", POINTER, str(failure), example)) from None
    return Source(Scheme.OCI, uri, image.name, image.digest or image.tag or None)


def _parse_place(kind: Scheme, uri: str) -> Source:
    rest = uri.partition("://")[2]
    try:
        if kind in RESOLVED:
            name = places.entry(uri)
        elif kind is Scheme.HTTPS:
            name = places.download(uri)
        else:
            name = places.claim(rest) if kind is Scheme.PVC else places.bucket(kind.value, rest)
    except ValueError as failure:
        raise SourceError(error("source_form", POINTER, str(failure), f"Example: {EXAMPLES[kind]}")) from None
    return Source(kind, uri, name)


def _no_scheme(uri: str) -> Finding:
    if match := BARE_HF.fullmatch(uri):
        return _proposed(f"hf://{match['id']}")
    if _names_image(uri):
        return _proposed(f"oci://{uri}")
    return error(
        "source_scheme",
        POINTER,
        "The address has no scheme, so nobody can tell where the model is.",
        "Write hf://owner/model, or oci://registry/repository@sha256:… for an image.",
    )


def _names_image(reference: str) -> bool:
    """True for an image as container tools write it: with its registry, and a tag or a digest."""
    try:
        image = parse_image(reference)
    except ValueError:
        return False
    return reference.startswith(f"{image.registry}/") and bool(image.tag or image.digest)


def _of_page(match: re.Match[str]) -> Finding | None:
    """What to write for a page of the hub; None for the address of one file, which is a source of its own."""
    kind, revision, path = match["kind"], unquote(match["revision"] or ""), match["path"] or ""
    if path.endswith(".gguf"):
        if kind == "resolve" and not match["query"] and match["host"] == HUB:
            return None
        return _proposed(f"https://{HUB}/{match['id']}/resolve/{match['revision']}/{path}")
    model = f"hf://{match['id']}"
    if not revision or revision == MAIN or not REVISION.fullmatch(revision) or NO_REVISION.search(revision):
        return _proposed(model)
    return error(
        "source_scheme",
        POINTER,
        f"That is a page of the hub. Write this model as “{model}”, with the revision “{revision}”.",
        "",
        model,
        also=[("/spec/source/revision", revision)],
    )


def _proposed(uri: str) -> Finding:
    return error("source_scheme", POINTER, f"Write this model as “{uri}”.", "", uri)
