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

from deployments.sources.image_limits import (
    MOST_ENTRIES,
    MOST_LAYERS,
    Budget,
    ImageError,
    Member,
    Unpacking,
    regular,
)
from deployments.sources.listing import CONFIG, GGUF_HEAD

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
MOST_JSON = 4 * 1024 * 1024
MOST_NESTED = 3
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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
    # What lies directly in each folder, whether or not it has an entry of its own: what is hidden is found by it.
    _inside: dict[str, set[str]] = field(default_factory=dict)

    def put(self, path: str, entry: Entry | None, mode: int = 0) -> None:
        """Place a file or link; or, without one, a folder of these permission bits, which keeps what it has."""
        if entry is None:
            self.entries.pop(path, None)
            self.folders[path] = mode
        else:
            self.remove(path)
            self.entries[path] = entry
        while path:
            parent, _, name = path.rpartition("/")
            beside = self._inside.setdefault(parent, set())
            if name in beside:
                return
            beside.add(name)
            path = parent

    def remove(self, path: str) -> None:
        """Take away what a layer hides: a path and what lies below it."""
        parent, _, name = path.rpartition("/")
        if path and name in self._inside.get(parent, ()):
            self._inside[parent].discard(name)
            self._forget(path)

    def remove_below(self, folder: str, kept: set[str]) -> None:
        """Take away what lies in a folder but for paths in `kept`, and folders that hold one."""
        for name in list(self._inside.get(folder, ())):
            path = f"{folder}/{name}" if folder else name
            self.remove_below(path, kept)
            if path not in kept:
                self.entries.pop(path, None)
                self.folders.pop(path, None)
                if not self._inside.get(path):
                    self._inside.pop(path, None)
                    self._inside[folder].discard(name)

    def _forget(self, path: str) -> None:
        left = [path]
        while left:
            path = left.pop()
            self.entries.pop(path, None)
            self.folders.pop(path, None)
            left += [f"{path}/{name}" for name in self._inside.pop(path, ())]


def contents_of(path: Path) -> Contents:
    """Read the image at this path; ImageError when it is none."""
    budget = Budget()
    try:
        with _blobs(path, budget) as blobs:
            contents = Contents()
            layers = _layers(blobs)
            if len(layers) > MOST_LAYERS:
                raise ImageError(f"The image has more than {MOST_LAYERS} layers.")
            for name in layers:
                with blobs.open(name) as layer:
                    _add(contents, layer, name, budget)
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
        return regular(self._root / name)

    def open(self, name: str) -> IO[bytes]:
        """A file by its name in the layout."""
        # Names are those of a manifest, which may say anything.
        if posixpath.isabs(name) or ".." in name.split("/") or not self.has(name):
            raise ImageError(f"The image lacks {name[:200]}.")
        return (self._root / name).open("rb")


class Archive:
    """The same in a tar file, or what `docker save` writes."""

    def __init__(self, archive: tarfile.TarFile, budget: Budget) -> None:
        self._archive = archive
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            budget.member(member)
            self._members[posixpath.normpath(member.name)] = member

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._members and self._members[name].isreg()

    def open(self, name: str) -> IO[bytes]:
        """A file by its name in the archive."""
        member = self._members.get(name)
        found = self._archive.extractfile(member) if member is not None else None
        if found is None:
            raise ImageError(f"The image lacks {name[:200]}.")
        return found


@contextmanager
def _blobs(path: Path, budget: Budget) -> Iterator[Folder | Archive]:
    if path.is_dir():
        yield Folder(path)
        return
    if path.exists() and not regular(path):
        raise ImageError(f"{path} is neither a folder nor a file.")
    with path.open("rb") as file:
        if file.read(2) == GZIP:
            raise ImageError(f"{path} is packed with gzip as a whole: unpack it first, with gunzip.")
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:", tarinfo=Member) as archive:
            yield Archive(archive, budget)


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


def _add(contents: Contents, layer: IO[bytes], name: str, budget: Budget) -> None:
    """Lay one layer over those before it."""
    magic = layer.read(4)
    size = layer.seek(0, 2)
    layer.seek(0)
    if magic.startswith(ZSTD):
        raise ImageError("A layer is packed with zstd, which is not read here: build with gzip or uncompressed.")
    # A stream is read on end; a plain file is jumped through, so that gigabytes of weights are not.
    packed = magic.startswith(GZIP)
    if packed:
        budget.packed(name, size)
    plain: Any = Unpacking(gzip.GzipFile(fileobj=layer), budget) if packed else layer
    with tarfile.open(fileobj=plain, mode="r|" if packed else "r:", tarinfo=Member) as archive:
        added: set[str] = set()
        opaque: set[str] = set()
        for member in archive:
            budget.member(member)
            _one(contents, archive, member, added, opaque, budget)
            archive.members = []  # type: ignore[attr-defined]  # Python keeps every header otherwise.
            if len(contents.entries) + len(contents.folders) > MOST_ENTRIES:
                raise ImageError(f"The image has more than {MOST_ENTRIES:,} files.")


def _one(
    contents: Contents,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    added: set[str],
    opaque: set[str],
    budget: Budget,
) -> None:
    path = posixpath.normpath("/" + member.name).lstrip("/")
    folder, _, name = path.rpartition("/")
    if name == OPAQUE:
        # It hides what layers below have there: once said is said.
        if folder not in opaque:
            opaque.add(folder)
            contents.remove_below(folder, added)
        return
    if name.startswith(WHITEOUT):
        contents.remove(f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/"))
        return
    added.add(path)
    if member.isdir():
        contents.put(path, None, member.mode)
    elif member.islnk():
        same = contents.entries.get(posixpath.normpath("/" + member.linkname).lstrip("/"))
        contents.put(path, same or Entry(0, member.mode, link=f"/{member.linkname}"))
    elif member.issym():
        contents.put(path, Entry(0, 0o777, link=member.linkname))
    elif member.isreg():
        contents.put(path, Entry(member.size, member.mode, head=_head(archive, member, name, budget)))
    else:
        contents.remove(path)


def _head(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, budget: Budget) -> bytes:
    most = MOST_JSON if name == CONFIG else GGUF_HEAD if name.endswith(".gguf") else 0
    file = archive.extractfile(member) if most else None
    found = file.read(most) if file is not None else b""
    budget.head(len(found))
    return found
