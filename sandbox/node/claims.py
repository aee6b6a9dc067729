"""What lies in volume claims: models that pods wrote there, kept on disk, so that every node finds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sandbox.engine.boot import ModelFiles


class Claims:
    """The content of claims, in a folder that all nodes of a sandbox share; without one, of this node alone."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._own: dict[tuple[str, str], dict[str, Any]] = {}

    def write(self, namespace: str, claim: str, path: str, files: ModelFiles) -> None:
        """Put a model into a folder of a claim."""
        content = self._content(namespace, claim)
        content[_clean(path)] = {"config": dict(files.config), "files": dict(files.files)}
        self._own[namespace, claim] = content
        if self._folder is not None:
            place = self._file(self._folder, namespace, claim)
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_suffix(f".{id(content)}")
            fresh.write_text(json.dumps(content))
            fresh.replace(place)

    def read(self, namespace: str, claim: str, path: str) -> ModelFiles | None:
        """The model at a path of a claim, be it a folder or a file in one."""
        content = self._content(namespace, claim)
        wanted = _clean(path)
        folder, _, name = wanted.rpartition("/")
        found = content.get(wanted)
        if found is None and name in content.get(folder, {}).get("files", {}):
            found = content[folder]
        return None if found is None else ModelFiles(found["config"], found["files"])

    def remove(self, namespace: str, claim: str) -> None:
        """Forget the content of a claim that is gone."""
        self._own.pop((namespace, claim), None)
        if self._folder is not None:
            self._file(self._folder, namespace, claim).unlink(missing_ok=True)

    def _content(self, namespace: str, claim: str) -> dict[str, Any]:
        if self._folder is None:
            return self._own.get((namespace, claim), {})
        try:
            found: dict[str, Any] = json.loads(self._file(self._folder, namespace, claim).read_text())
        except FileNotFoundError:
            return {}
        return found

    def _file(self, folder: Path, namespace: str, claim: str) -> Path:
        return folder / namespace / f"{claim}.json"


def _clean(path: str) -> str:
    return "/".join(part for part in path.split("/") if part)
