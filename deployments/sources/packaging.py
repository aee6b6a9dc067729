"""Whether weights are packaged so that a cluster can serve them from an image, and in which ways. Pure.

Facts: an image volume mounts a folder read-only as it lies in the image, links and permissions included; KServe's
`oci+native://` mounts `/models` alone; a modelcar runs the image's own `sh`, `ln`, `ls` and `sleep`. The engine runs as
user 1000, who is not in the image's groups.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deployments.findings import Finding, error, info, warning
from deployments.sources.checks import Reply
from deployments.sources.formats import MEANING, WeightFormat, format_of
from deployments.sources.image_layers import Contents, Entry
from deployments.sources.image_limits import ImageError
from deployments.sources.listing import Place, judge
from deployments.sources.oci import FOLDER

SHELL = ("sh", "ls", "ln", "sleep")
PROGRAMS = ("bin", "usr/bin", "sbin", "usr/sbin")
OTHERS_READ, OTHERS_ENTER = 0o004, 0o001
MOST_NAMED = 3
MOST_FOLDERS = 100


@dataclass(frozen=True)
class Packaged:
    """One folder of an image that holds weights. Sizes in bytes."""

    folder: str
    format: WeightFormat
    size: int
    ways: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def serves(self) -> bool:
        """True when a deployment can serve this folder."""
        return bool(self.ways) and not any(finding.is_error for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {
            "folder": self.folder,
            "format": self.format.value,
            "meaning": MEANING[self.format],
            "bytes": self.size,
            "ways": list(self.ways),
            "ok": self.serves,
            "findings": [finding.as_json() for finding in self.findings],
        }


def packaged(contents: Contents) -> list[Packaged]:
    """Every folder of an image with weights, the likeliest first: `/models`, then by size. ImageError for too many."""
    found = [folder for folder in (_folder(contents, name) for name in _places(contents)) if folder is not None]
    return sorted(found, key=lambda one: (one.folder != FOLDER, -one.size))


def programs_of(contents: Contents) -> set[str]:
    """Those of the programs that a modelcar runs which the image has."""
    return {name for name in SHELL if any(f"{folder}/{name}" in contents.entries for folder in PROGRAMS)}


def _places(contents: Contents) -> list[str]:
    """Folders with weights directly in them; others of an image, thousands on a common base, are not looked into."""
    named: dict[str, dict[str, int]] = {}
    for path in contents.entries:
        folder, _, name = path.rpartition("/")
        named.setdefault(folder, {})[name] = 1
    found = sorted(folder for folder, names in named.items() if format_of(names) is not None)
    if len(found) > MOST_FOLDERS:
        raise ImageError(f"Weights lie in {len(found):,} folders of the image; at most {MOST_FOLDERS} are looked at.")
    return found


def _folder(contents: Contents, name: str) -> Packaged | None:
    below = f"{name}/" if name else ""
    # Relative names; judged like a bucket's folder, links by what they lead to.
    inside = {path.removeprefix(below): _at(contents, path) for path in contents.entries if path.startswith(below)}
    sizes = {path: entry.size for path, entry in inside.items() if entry is not None and entry.size}
    links = {path: contents.entries[below + path].link for path in inside if contents.entries[below + path].link}
    named = {path: 1 for path in inside if "/" not in path}
    kind = format_of(named)
    if kind is None:
        return None
    shown = f"/{name}"
    findings = (*_links(name, links), *_unreadable(contents, name, inside), *_model(shown, inside, sizes))
    size = sum(size for path, size in sizes.items() if "/" not in path)
    return Packaged(shown, kind, size, _ways(contents, shown), (*findings, *_place(contents, shown)))


def _at(contents: Contents, path: str) -> Entry | None:
    """What a path names once links are followed; None where they lead nowhere or round in a circle."""
    for _ in range(8):
        entry = contents.entries.get(path)
        if entry is None or not entry.link:
            return entry
        path = _target(path, entry.link)
    return None


def _target(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), link)).lstrip("/")


def _ways(contents: Contents, folder: str) -> tuple[str, ...]:
    """How clusters can have this folder, in Slipway's words for it (`image_mode`)."""
    ways = ["image volume of KServe"] if folder == FOLDER else []
    ways.append("image volume of Slipway's own runtime")
    if folder != "/" and programs_of(contents) == set(SHELL):
        ways.append("modelcar")
    return tuple(ways)


def _links(folder: str, links: dict[str, str]) -> Iterator[Finding]:
    """Only the folder is mounted: what a link leads to outside of it is not there."""
    out = [name for name, link in links.items() if not _inside(folder, name, link)]
    if out:
        yield error(
            "links_outside",
            f"/{folder}",
            f"{_named(out)} in /{folder} are links out of the folder, and only the folder is mounted.",
            "Copy the files themselves: hf download --local-dir writes no links, cp -L follows them.",
        )


def _inside(folder: str, name: str, link: str) -> bool:
    if link.startswith("/"):
        return False
    target = _target(f"{folder}/{name}", link)
    return not folder or target.startswith(f"{folder}/")


def _unreadable(contents: Contents, folder: str, inside: dict[str, Entry | None]) -> Iterator[Finding]:
    """Images are mounted as they are: no fsGroup changes who owns their files."""
    shut = [name for name, entry in inside.items() if entry is not None and not entry.mode & OTHERS_READ]
    parents = [folder[:end] for end, letter in enumerate(folder) if letter == "/"] + [folder]
    shut += [f"/{one}" for one in parents if not contents.folders.get(one, 0o755) & OTHERS_ENTER]
    if shut:
        yield error(
            "not_readable",
            f"/{folder}",
            f"{_named(shut)} can be read by the image's owner alone; the engine runs as user 1000.",
            f"chmod -R a+rX {folder or '.'} before the image is built.",
        )


def _model(shown: str, inside: dict[str, Entry | None], sizes: dict[str, int]) -> Iterator[Finding]:
    """What is said of a bucket's folder with these files is said of an image's."""

    def read(name: str, first: int | None) -> Reply:
        entry = inside.get(name)
        body = entry.head[:first] if entry is not None else b""
        try:
            document = json.loads(body) if name.endswith(".json") else None
        except (ValueError, RecursionError):
            document = None
        return Reply(200, document, body=body)

    said = judge(Place(shown, read), sizes)
    if not said.found:
        yield error("no_model", shown, said.message, said.remedy)
    elif said.model is not None and said.model.format is not WeightFormat.GGUF and not _tokenizer(sizes):
        yield warning(
            "no_tokenizer",
            shown,
            f"{shown} has no tokenizer beside the weights, and pods with weights in an image reach no hub.",
            "Copy tokenizer.json and tokenizer_config.json too.",
        )


def _tokenizer(sizes: dict[str, int]) -> bool:
    return any(name.startswith(("tokenizer", "tekken", "vocab")) or name.endswith(".model") for name in sizes)


def _place(contents: Contents, folder: str) -> Iterator[Finding]:
    """What the place of the weights rules out."""
    if folder != FOLDER:
        yield info(
            "folder",
            folder,
            f"KServe mounts {FOLDER} of an image and nothing else: name the folder “{folder}” in the request.",
            f"Prefill and decode take {FOLDER} alone: put the weights there to serve them so.",
        )
    lacking = [name for name in SHELL if name not in programs_of(contents)]
    if folder == "/" or lacking:
        why = "the weights lie at its root" if folder == "/" else f"it has no {', '.join(lacking)}"
        yield info(
            "image_volume_only",
            folder,
            f"Clusters that mount no images cannot serve this one: {why}.",
            f"For a modelcar build on an image with {', '.join(SHELL)}, with the weights below {FOLDER}.",
        )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} others" if len(names) > MOST_NAMED else ""
    return ", ".join(sorted(names)[:MOST_NAMED]) + more
