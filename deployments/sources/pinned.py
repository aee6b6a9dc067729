"""Addresses pinned to what they named at submission: what an approval signs must not move afterwards. Pure."""

from __future__ import annotations

from deployments.sources.oci import SCHEME, parse_image
from deployments.sources.uris import Scheme, parse


def pinned(uri: str, pin: str) -> str:
    """The address of exactly this version: a commit of the hub, or the digest of an image."""
    source = parse(uri)
    if source.scheme is Scheme.OCI:
        return SCHEME + parse_image(uri).at(pin)
    return f"hf://{source.id}:{pin}"
