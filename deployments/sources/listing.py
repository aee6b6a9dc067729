"""A model as a list of files: which format its weights have, and whether vLLM can serve what lies there. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deployments.engine.facts import ModelFacts
from deployments.sources.beside import with_files
from deployments.sources.checks import Reply, SourceCheck, SourceCode
from deployments.sources.formats import MEANING, WeightFormat, format_of, weights_bytes
from deployments.sources.gguf import GgufError, facts_of
from deployments.sources.huggingface import model_facts

CONFIG = "config.json"
# Names reach the command line of the engine.
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
# Enough of a GGUF file to hold what it says of its shape, which stands before the list of its tokens.
GGUF_HEAD = 64 * 1024
MOST_NAMED = 5


_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True)
class Place:
    """A folder, or a single file, of a store: how people write it, and how to read from it.

    `read(name, first)` fetches a file of it, or only its first bytes.
    """

    uri: str
    read: Callable[[str, int | None], Reply]
    single: bool = False


def is_archive(name: str) -> bool:
    """True for what the storage initializer unpacks after it was fetched alone."""
    return name.endswith(_ARCHIVES)


def is_file(path: str) -> bool:
    """True for a path that names one file that can be a whole model."""
    return path.endswith(".gguf") or is_archive(path)


@dataclass(frozen=True)
class Under:
    """What of a bucket's objects an address names: a folder, sizes in bytes by name in it, whether it is one file."""

    folder: str
    sizes: Mapping[str, int]
    single: bool

    def key(self, name: str) -> str:
        """The object that a file of it is."""
        return f"{self.folder}/{name}" if self.folder else name


def under(wanted: str, objects: Mapping[str, int]) -> Under:
    """The part of a listing (sizes in bytes by key) that lies under a path without slashes around it."""
    if wanted in objects and is_file(wanted):
        folder, _, name = wanted.rpartition("/")
        return Under(folder, {name: objects[wanted]}, True)
    prefix = f"{wanted}/" if wanted else ""
    # A loader skips what is empty, and so does this.
    sizes = {key.removeprefix(prefix): size for key, size in objects.items() if key.startswith(prefix) and size}
    return Under(wanted, sizes, False)


def too_many(shown: str) -> SourceCheck:
    """What is said of a folder whose listing does not end."""
    return SourceCheck(
        SourceCode.UNUSABLE, f"More than a thousand files lie under {shown}.", "Name the model's own folder."
    )


def judge(place: Place, sizes: Mapping[str, int]) -> SourceCheck:
    """Say what lies at a place; `sizes` are the bytes of its files by their names relative to it."""
    if len(sizes) == 1 and is_archive(next(iter(sizes))):
        return _archive(place)
    kind = format_of(sizes)
    if kind is WeightFormat.GGUF:
        return _gguf(place, sizes)
    if kind is None or CONFIG not in sizes:
        return _incomplete(place, sizes, kind)
    config = place.read(CONFIG, None)
    if config.status != 200 or not isinstance(config.json, Mapping):
        return SourceCheck(
            SourceCode.UNUSABLE if config.status == 200 else SourceCode.UNREACHABLE,
            f"{CONFIG} of {place.uri} could not be read ({config.said}).",
            "It must be the JSON file that transformers writes.",
            loads=place.uri,
        )
    known = replace(
        model_facts(place.uri, _metadata(sizes), *with_files(config.json, sizes, lambda name: place.read(name, None))),
        weights_bytes=weights_bytes(sizes, kind),
        format=kind,
    )
    return SourceCheck(SourceCode.FOUND, f"Found {place.uri} ({MEANING[kind]}).", "", known, place.uri)


def _metadata(sizes: Mapping[str, int]) -> dict[str, Any]:
    return {"siblings": [{"rfilename": name, "size": size} for name, size in sizes.items()]}


def _archive(place: Place) -> SourceCheck:
    message = f"Found {place.uri}, an archive: what is in it shows when it is unpacked."
    return SourceCheck(SourceCode.FOUND, message, "", ModelFacts(id=place.uri), place.uri)


def _gguf(place: Place, sizes: Mapping[str, int]) -> SourceCheck:
    names = sorted(name for name in sizes if name.endswith(".gguf") and "/" not in name)
    if len(names) > 1:
        named = ", ".join(names[:MOST_NAMED]) + (" and others" if len(names) > MOST_NAMED else "")
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"{place.uri} has {len(names)} GGUF files ({named}); vLLM loads one.",
            f"Name one of them: {place.uri.rstrip('/')}/{names[0]}",
        )
    name = names[0]
    if not FILE_NAME.fullmatch(name):
        return SourceCheck(
            SourceCode.UNUSABLE,
            "The name of the GGUF file has characters that are not taken.",
            "Use letters, digits, “.”, “_” and “-”.",
        )
    head = place.read(name, GGUF_HEAD)
    if head.status not in {200, 206}:
        return SourceCheck(
            SourceCode.UNREACHABLE, f"{name} of {place.uri} could not be read ({head.said}).", "Try again later."
        )
    try:
        known = facts_of(place.uri, head.body)
    except GgufError as error:
        return SourceCheck(SourceCode.UNUSABLE, f"{name}: {error}", "Choose another file.")
    beside = "beside" if "tokenizer.json" in sizes else ""
    described = CONFIG in sizes
    total = sum(sizes.values())
    known = replace(
        known, weights_bytes=sizes[name], download_bytes=total, format=WeightFormat.GGUF, file=name, tokenizer=beside
    )
    known = replace(known, described=described)
    return SourceCheck(SourceCode.FOUND, f"Found {name} ({MEANING[WeightFormat.GGUF]}).", "", known, place.uri)


def _incomplete(place: Place, sizes: Mapping[str, int], kind: WeightFormat | None) -> SourceCheck:
    """Something lies there, and it is no model: say what is missing, and where it may be."""
    inner = sorted(name for name in sizes if name.endswith(f"/{CONFIG}"))
    if inner:
        folder = inner[0].removesuffix(f"/{CONFIG}")
        remedy = f"Name the folder that holds it: {place.uri.rstrip('/')}/{folder}"
    else:
        remedy = "It must hold config.json and weights as safetensors, or be one GGUF file."
    lacks = f"no {CONFIG}" if kind is not None else "no weights that vLLM loads"
    return SourceCheck(SourceCode.UNUSABLE, f"{place.uri} has {lacks}.", remedy)
