"""References to images that hold weights: `oci://registry/repository:tag`, or better `…@sha256:…`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SCHEME = "oci://"
# What KServe mounts of an image, and where its own recipe puts the weights.
FOLDER = "/models"
# Files that are a model of their own.
GGUF = ".gguf"
HUB = "docker.io"
# Other names of the hub, which container runtimes read as the first.
ALIASES = frozenset({HUB, "index.docker.io"})
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_REGISTRY = re.compile(_HOST)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """A reference taken apart. Without a tag and a digest the tag is “latest”, as everywhere."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The image without its version."""
        return f"{self.registry}/{self.repository}"

    def at(self, digest: str) -> str:
        """The reference of exactly this content; a tag would say nothing beside it."""
        return f"{self.name}@{digest}"


def parse_image(uri: str) -> Image:
    """Take `oci://…` apart as container runtimes do; ValueError, in words for people, where they could not."""
    rest, at, digest = uri.removeprefix(SCHEME).partition("@")
    head, colon, tag = rest.rpartition(":")
    tagged = bool(colon) and "/" not in tag
    if not tagged:
        head, tag = rest, ""
    first, slash, others = head.partition("/")
    by_name = bool(slash) and ("." in first or ":" in first or first == "localhost")
    registry, repository = (first, others) if by_name else (HUB, head if slash else f"library/{head}")
    if not _REGISTRY.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
        raise ValueError("An image is written oci://registry/repository:tag, its repository in lower case.")
    if tagged and not _TAG.fullmatch(tag):
        raise ValueError(f"“{tag[:40]}” is not a tag of an image.")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError("A digest is written @sha256: and 64 hex digits.")
    return Image(registry, repository, tag, digest)


def within(path: str | None) -> tuple[str, str]:
    """The folder of an image that is mounted, and the one file in it that is the model; no file for a whole folder."""
    above, _, name = (path or FOLDER).rpartition("/")
    return (above or "/", name) if name.endswith(GGUF) else (path or FOLDER, "")


def is_listed(image: Image, listed: Iterable[str]) -> bool:
    """True when an image lies in one of the registries `listed`, each a host with its port, or a place below it.

    Compared part by part and port included: what only begins or ends like a registry of the list is another one.
    """
    host, *path = _parts(image.name)
    if host == HUB and len(path) == 1:
        path = ["library", *path]
    return any([host, *path][: len(parts)] == parts for parts in map(_parts, listed))


def is_same_registry(one: str, other: str) -> bool:
    """True when two addresses lie in one registry: the same host, and the same port."""
    return _parts(one)[0] == _parts(other)[0]


def _parts(name: str) -> list[str]:
    """Host and path; hosts know no case, and the hub has two."""
    host, *path = name.strip("/").split("/")
    return [HUB if host.lower() in ALIASES else host.lower(), *path]


def digest_of(uri: str) -> str:
    """The digest that an address of an image names itself; empty where it names none, or is no such address."""
    try:
        return parse_image(uri).digest if uri.startswith(SCHEME) else ""
    except ValueError:
        return ""
