"""The models this hub knows, and who may read them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

DATA = Path(__file__).with_name("models.json")
ADAPTERS = Path(__file__).with_name("adapters.json")
# What a token's name means here; every other token beginning with `hf_` is valid and has accepted all licences.
INVALID, UNACCEPTED = "hf_invalid", "hf_unaccepted"


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; `size` in bytes, `lfs` when the hub keeps it out of git."""

    name: str
    size: int
    lfs: bool

    def etag(self, sha: str) -> str:
        """A stable content hash: sha256 for LFS files, 40 hex digits for others, as on the hub."""
        digest = hashlib.sha256(f"{sha}/{self.name}".encode()).hexdigest()
        return digest if self.lfs else digest[:40]


@dataclass(frozen=True)
class Model:
    """One repository at its only revision."""

    id: str
    sha: str
    gated: str | bool
    config: dict[str, Any]
    parameters: dict[str, int]
    files: tuple[HubFile, ...]
    card: dict[str, Any]
    config_name: str = "config.json"
    tokenizer: dict[str, Any] = field(default_factory=dict)  # its tokenizer_config.json, as far as it matters
    private: bool = False  # then nobody but its own people is told that it is there

    def file(self, name: str) -> HubFile | None:
        """Find a file by path."""
        return next((entry for entry in self.files if entry.name == name), None)

    def knows(self, revision: str) -> bool:
        """Whether `revision` is a branch or commit of this repository."""
        return revision in ("main", "HEAD", self.sha)


def load() -> dict[str, Model]:
    """Read the catalog, by repository id."""
    return {model.id: model for model in map(_model, orjson.loads(DATA.read_bytes())["models"])}


def load_adapters() -> dict[str, Model]:
    """Read the LoRA adapters for some of the models, by repository id."""
    return {model.id: model for model in map(_model, orjson.loads(ADAPTERS.read_bytes())["adapters"])}


def access(model: Model, token: str | None) -> str | None:
    """Say why `token` may not read the files of `model`: "invalid", "anonymous", "unaccepted" or None (it may)."""
    if token is not None and not valid(token):
        return "invalid"
    if not (model.gated or model.private):
        return None
    if token is None:
        return "anonymous"
    return "unaccepted" if token.startswith(UNACCEPTED) else None


def valid(token: str) -> bool:
    """Whether the hub issued this token."""
    return token.startswith("hf_") and not token.startswith(INVALID)


def _model(entry: dict[str, Any]) -> Model:
    config = orjson.dumps(entry["config"], option=orjson.OPT_INDENT_2)
    name = entry.get("config_name", "config.json")
    files = [HubFile(name, len(config), lfs=False)]
    files += [HubFile(name, size, lfs=size > 10_000_000) for name, size in entry["other_files"].items()]
    files += [HubFile(name, size, lfs=True) for name, size in entry["weights"].items()]
    kept = ("license", "pipeline_tag", "tags")
    return Model(
        id=entry["id"],
        sha=entry["sha"],
        gated=entry["gated"],
        config=entry["config"],
        parameters=entry["parameters"],
        files=tuple(sorted(files, key=lambda file: file.name)),
        card={key: entry[key] for key in kept},
        config_name=name,
        tokenizer=entry.get("tokenizer", {}),
        private=entry.get("private", False),
    )
