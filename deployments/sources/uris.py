"""Addresses of model weights: told apart by scheme, read strictly, never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from deployments.findings import Finding, error, warning
from deployments.sources.oci import parse_image
from deployments.spec import hazard

POINTER = "/spec/source/uri"
PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
HF = re.compile(rf"hf://(?P<owner>{PART})/(?P<model>{PART})(?::(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")
BARE_HF = re.compile(rf"(?:https://huggingface\.co/)?(?P<id>{PART}/{PART})/?")


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


_TITLES = {
    Scheme.S3: "S3 buckets",
    Scheme.GS: "Google Cloud Storage",
    Scheme.PVC: "Volumes",
    Scheme.OCI: "OCI images",
    Scheme.HTTPS: "Plain downloads",
    Scheme.MLFLOW: "MLflow models",
    Scheme.MODEL_REGISTRY: "Model registry entries",
}


@dataclass(frozen=True)
class Source:
    """A model's address, taken apart. `id` is what people call the model."""

    scheme: Scheme
    uri: str
    id: str
    revision: str | None = None

    @property
    def available(self) -> bool:
        """True when this release can serve from this kind of source."""
        return self.scheme in {Scheme.HF, Scheme.OCI}


class SourceError(ValueError):
    """An address that cannot be read; carries the finding for the form."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.message)


def parse(uri: str) -> Source:
    """Take an address apart; raises SourceError with what to write instead."""
    if reason := hazard(uri):
        raise SourceError(error("source_unsafe", POINTER, f"The address {reason}."))
    if any(char.isspace() or ord(char) > 0x7E for char in uri):
        raise SourceError(error("source_form", POINTER, "The address may not contain spaces or accents."))
    if uri.startswith("models:/"):
        return Source(Scheme.MLFLOW, uri, uri.removeprefix("models:/"))
    scheme, separator, rest = uri.partition("://")
    if not separator:
        raise SourceError(_no_scheme(uri))
    if scheme == "https" and (match := BARE_HF.fullmatch(uri)):
        raise SourceError(_proposed(f"hf://{match['id']}"))
    try:
        kind = Scheme(scheme)
    except ValueError:
        known = ", ".join(f"{item.value}://" for item in Scheme if item is not Scheme.MLFLOW)
        raise SourceError(
            error("source_scheme", POINTER, f"“{scheme[:20]}://” is not a known kind of source.", f"Known: {known}.")
        ) from None
    if kind is Scheme.HF:
        return _parse_hf(uri)
    if kind is Scheme.OCI:
        return _parse_oci(uri)
    if not rest.strip("/"):
        raise SourceError(error("source_form", POINTER, "The address names nothing after its scheme."))
    return Source(kind, uri, rest)


def check_uri(uri: str) -> list[Finding]:
    """Findings about an address alone: how it is written, and whether this release can serve from it."""
    try:
        source = parse(uri)
    except SourceError as failure:
        return [failure.finding]
    if not source.available:
        return [
            error(
                "source_later",
                POINTER,
                f"{_TITLES[source.scheme]} ({source.scheme.value}:) come with a later release.",
                "Use a model from the hub: hf://owner/model.",
            )
        ]
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
        example = "Example: oci://registry.example.com/models/granite:1.0"
        raise SourceError(error("source_form", POINTER, str(failure), example)) from None
    return Source(Scheme.OCI, uri, image.name, image.digest or image.tag or None)


def _no_scheme(uri: str) -> Finding:
    if match := BARE_HF.fullmatch(uri):
        return _proposed(f"hf://{match['id']}")
    return error(
        "source_scheme",
        POINTER,
        "The address has no scheme, so nobody can tell where the model is.",
        "Write hf://owner/model.",
    )


def _proposed(uri: str) -> Finding:
    return error("source_scheme", POINTER, f"Write this model as “{uri}”.", "", uri)
