"""An image on disk, read layer by layer without unpacking it: an OCI layout as a folder or archive, or `docker save`.

Format: OCI image-spec 1.1 (`index.json`, manifests, layers with whiteouts); `docker save` beside it (`manifest.json`).
"""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deployments.sources.listing import CONFIG, GGUF_HEAD

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
MOST_ENTRIES = 200_000
MOST_JSON = 4 * 1024 * 1024
MOST_NESTED = 3
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageError(ValueError):
    """The file is no image, or none that can be read here; the message is for people."""


@dataclass(frozen=True)
class Entry:
    """A file or a link of an image: bytes, permission bits, and where a link leads."""

    size: int
    mode: int
    link: str = ""
    head: bytes = b""  # of what is read to judge a model: config.json whole, the beginning of a GGUF file


@dataclass
class Contents:
    """What containers of an image see, by path without a leading slash; folders by their permission bits."""

    entries: dict[str, Entry] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)

    def remove(self, path: str, *, itself: bool = True) -> None:
        """Take away what a layer hides: a path and what lies below it, or only what lies below it."""
        below = f"{path}/" if path else ""
        for kept in (self.entries, self.folders):
            for name in [name for name in kept if name.startswith(below) or (itself and name == path)]:
                del kept[name]


def contents_of(path: Path) -> Contents:
    """Read the image at this path; ImageError when it is none."""
    try:
        with _blobs(path) as blobs:
            contents = Contents()
            for name in _layers(blobs):
                with blobs.open(name) as layer:
                    _add(contents, layer)
            return contents
    # The last two of links in an archive: to nothing, and round in a circle.
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError, RecursionError) as failure:
        raise ImageError(f"{path} cannot be read: {failure}") from failure


class Folder:
    """An OCI layout in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._root / name).is_file()

    def open(self, name: str) -> IO[bytes]:
        """A file by its name in the layout."""
        return (self._root / name).open("rb")


class Archive:
    """The same in a tar file, or what `docker save` writes."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {posixpath.normpath(member.name): member for member in archive}

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._members and self._members[name].isreg()

    def open(self, name: str) -> IO[bytes]:
        """A file by its name in the archive."""
        member = self._members.get(name)
        found = self._archive.extractfile(member) if member is not None else None
        if found is None:
            raise ImageError(f"The image lacks {name}.")
        return found


@contextmanager
def _blobs(path: Path) -> Iterator[Folder | Archive]:
    if path.is_dir():
        yield Folder(path)
        return
    with tarfile.open(path) as archive:
        yield Archive(archive)


def _layers(blobs: Folder | Archive) -> list[str]:
    """The names of an image's layers, the lowest first."""
    if blobs.has("index.json"):
        manifest = _manifest(blobs, _json(blobs, "index.json"), MOST_NESTED)
        return [_blob(layer) for layer in _list(manifest, "layers")]
    if blobs.has("manifest.json"):
        saved = _json(blobs, "manifest.json")
        first = saved[0] if isinstance(saved, list) and saved else None
        layers = first.get("Layers") if isinstance(first, Mapping) else None
        if isinstance(layers, list) and all(isinstance(name, str) for name in layers):
            return [posixpath.normpath(name) for name in layers]
    raise ImageError("This is no image: it has neither index.json of an OCI layout nor manifest.json of docker save.")


def _manifest(blobs: Folder | Archive, document: Any, steps: int) -> Mapping[str, Any]:
    """The manifest that an index leads to: of several platforms linux/amd64, and no attestation."""
    if not isinstance(document, Mapping):
        raise ImageError("The image's index is no JSON object.")
    if "layers" in document:
        return document
    images = [
        item for item in _list(document, "manifests") if "vnd.docker.reference.type" not in _within(item, "annotations")
    ]
    if not images or not steps:
        raise ImageError("The image's index names no image.")
    chosen = next((item for item in images if _within(item, "platform").get("architecture") == "amd64"), images[0])
    return _manifest(blobs, _json(blobs, _blob(chosen)), steps - 1)


def _within(descriptor: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = descriptor.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise ImageError(f"The image's “{name}” is no list of objects.")
    return found


def _blob(descriptor: Mapping[str, Any]) -> str:
    digest = descriptor.get("digest")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ImageError("A part of the image has no sha256 digest.")
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _json(blobs: Folder | Archive, name: str) -> Any:
    with blobs.open(name) as file:
        text = file.read(MOST_JSON + 1)
    if len(text) > MOST_JSON:
        raise ImageError(f"{name} of the image is larger than {MOST_JSON >> 20} MiB.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ImageError(f"{name} of the image is no JSON.") from None


def _add(contents: Contents, layer: IO[bytes]) -> None:
    """Lay one layer over those before it."""
    magic = layer.read(4)
    layer.seek(0)
    if magic.startswith(ZSTD):
        raise ImageError("A layer is packed with zstd, which is not read here: build with gzip or uncompressed.")
    plain = gzip.GzipFile(fileobj=layer) if magic.startswith(GZIP) else layer
    # A stream is read on end; a plain file is jumped through, so that gigabytes of weights are not.
    with tarfile.open(fileobj=plain, mode="r|" if magic.startswith(GZIP) else "r:") as archive:
        added: set[str] = set()
        for member in archive:
            _one(contents, archive, member, added)
            if len(contents.entries) + len(contents.folders) > MOST_ENTRIES:
                raise ImageError(f"The image has more than {MOST_ENTRIES} files.")


def _one(contents: Contents, archive: tarfile.TarFile, member: tarfile.TarInfo, added: set[str]) -> None:
    path = posixpath.normpath("/" + member.name).lstrip("/")
    folder, _, name = path.rpartition("/")
    if name == OPAQUE:
        for below in [one for one in (*contents.entries, *contents.folders) if one.startswith(f"{folder}/")]:
            if below not in added:
                contents.entries.pop(below, None)
                contents.folders.pop(below, None)
        return
    if name.startswith(WHITEOUT):
        contents.remove(f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/"))
        return
    added.add(path)
    if member.isdir():
        contents.folders[path] = member.mode
        contents.entries.pop(path, None)
        return
    contents.remove(path)
    if member.islnk():
        same = contents.entries.get(posixpath.normpath("/" + member.linkname).lstrip("/"))
        contents.entries[path] = same or Entry(0, member.mode, link=f"/{member.linkname}")
    elif member.issym():
        contents.entries[path] = Entry(0, 0o777, link=member.linkname)
    elif member.isreg():
        contents.entries[path] = Entry(member.size, member.mode, head=_head(archive, member, name))


def _head(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
    most = MOST_JSON if name == CONFIG else GGUF_HEAD if name.endswith(".gguf") else 0
    file = archive.extractfile(member) if most else None
    return file.read(most) if file is not None else b""
