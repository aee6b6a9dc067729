"""What one image may take to be read: whoever made it may have meant harm, or a mistake, and the reader goes on.

Every number that an archive gives is bounded before it is believed: headers, names, members, what packed data becomes.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
from pathlib import Path
from typing import Any, Self

MOST_ENTRIES = 200_000  # files, links and folders that are there in the end
MOST_MEMBERS = 1_000_000  # of all layers, with those that take others away
MOST_LAYERS = 500
MOST_NAMES = 256 * 1024 * 1024  # bytes of all paths together
MOST_HEADS = 64 * 1024 * 1024  # bytes of what is kept of files to judge a model by
LONGEST_PATH, DEEPEST = 4096, 128
LONGEST_HEADER = 1024 * 1024
# Weights hardly shrink when they are packed; what unpacks to so many times its size is no image of them.
MOST_RATIO, SPARE = 100, 1024**3
HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


class ImageError(ValueError):
    """The file is no image, or none that can be read here; the message is for people."""


class Budget:
    """What reading one image has taken so far; each step that goes beyond its bound raises ImageError."""

    def __init__(self) -> None:
        self._members = self._names = self._heads = self._unpacked = 0
        self._packed: dict[str, int] = {}

    def member(self, item: tarfile.TarInfo) -> None:
        """One more member of an archive."""
        self._members += 1
        self._names += len(item.name) + len(item.linkname)
        if self._members > MOST_MEMBERS:
            raise ImageError(f"The image has more than {MOST_MEMBERS:,} entries in its layers.")
        if max(len(item.name), len(item.linkname)) > LONGEST_PATH or item.name.count("/") > DEEPEST:
            raise ImageError(f"A path in the image is longer than {LONGEST_PATH:,}, or deeper than {DEEPEST} folders.")
        if self._names > MOST_NAMES:
            raise ImageError(f"The names in the image take more than {MOST_NAMES >> 20} MiB.")
        if item.size < 0:
            raise ImageError("A file in the image has a size below zero.")

    def head(self, size: int) -> None:
        """So many bytes more are kept."""
        self._heads += size
        if self._heads > MOST_HEADS:
            raise ImageError(f"The configurations in the image take more than {MOST_HEADS >> 20} MiB.")

    def packed(self, name: str, size: int) -> None:
        """A part of so many bytes is unpacked; one that is named twice counts once."""
        self._packed[name] = size

    def unpacked(self, size: int) -> None:
        """So many bytes came out."""
        self._unpacked += size
        if self._unpacked > MOST_RATIO * sum(self._packed.values()) + SPARE:
            raise ImageError(f"The image unpacks to more than {MOST_RATIO} times its size.")


class Unpacking:
    """A stream of what is packed, counted as it comes out."""

    def __init__(self, stream: gzip.GzipFile, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        found = self._stream.read(size)
        self._budget.unpacked(len(found))
        return found


class Member(tarfile.TarInfo):
    """A header whose numbers are looked at before anything is read because of them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """One block of an archive as a header."""
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0:
            raise ImageError("A file in the image has a size below zero.")
        if found.type in HEADERS and found.size > LONGEST_HEADER:
            raise ImageError(f"A header in the image is longer than {LONGEST_HEADER >> 20} MiB.")
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise ImageError("The image has a sparse file, which is not read here.")
        return found

    def _proc_gnusparse_10(self, *_: Any) -> None:
        # Its map of the file is as long as the archive says.
        raise ImageError("The image has a sparse file, which is not read here.")


def regular(path: Path) -> bool:
    """True for a file with an end: a pipe or a device is read for ever."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def harmless(text: str) -> str:
    """Text as a terminal may show it: what is no letter or sign is written as its number."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\u{ord(char):04x}" for char in text)
