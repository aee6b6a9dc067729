"""Addresses pinned to what they named at submission: what an approval signs must not move afterwards. Pure."""

from __future__ import annotations

from deployments.sources.listing import is_file
from deployments.sources.oci import SCHEME, parse_image, within
from deployments.sources.uris import Scheme, parse


def pinned(uri: str, pin: str) -> str:
    """The address of exactly this version: a commit of the hub, or the digest of an image."""
    source = parse(uri)
    if source.scheme is Scheme.OCI:
        return SCHEME + parse_image(uri).at(pin)
    return f"hf://{source.id}:{pin}"


def as_loaded(uri: str) -> str:
    """The address of a place that has no versions, as KServe's loader is to read it."""
    source = parse(uri)
    if source.scheme is Scheme.HTTPS:
        return uri
    # Without the last slash the loader of buckets would take “chat-2/…” for a part of “chat”.
    slash = "/" if source.scheme is Scheme.S3 and not is_file(source.path) else ""
    return f"{source.scheme.value}://{source.id}{slash}"


def file_of(uri: str, folder: str | None = None) -> str:
    """The name of the one file that an address names, as it lies in the model's folder; empty for a folder.

    Of an image `folder` says where in it the model lies. A file of a claim is mounted in place of the folder, and an
    archive is unpacked into it.
    """
    source = parse(uri)
    if source.scheme is Scheme.OCI:
        return within(folder)[1]
    name = source.path.rpartition("/")[2]
    return name if name.endswith(".gguf") and source.scheme is not Scheme.PVC else ""


def as_anybody(uri: str) -> str:
    """The same folder of an S3 bucket, written as nobody else does: by that our loader without keys is chosen."""
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    return f"s3://{bucket}//{path.lstrip('/')}"
