"""What a container finds at a path: the mount that is there, and of an image the folder that is mounted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.engine.boot import ModelFiles
from sandbox.node.images import Repository, Weights


def mount_at(spec: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The volume mount of a container that a path lies in: of mounts in one another the innermost."""
    holding: list[Mapping[str, Any]] = []
    for mount in spec.get("volumeMounts") or []:
        place = mount["mountPath"].rstrip("/")
        if path.rstrip("/") == place or path.startswith(f"{place}/"):
            holding.append(mount)
    return max(holding, key=lambda mount: len(mount["mountPath"].rstrip("/")), default=None)


def found_in(weights: Weights, mount: Mapping[str, Any], path: str) -> ModelFiles | None:
    """The model at `path` of a container that mounts this image, or a folder of it, with `mount`."""
    return weights.files if path_in(mount, path) == weights.folder else None


def path_in(mount: Mapping[str, Any], path: str) -> str:
    """Where in a volume the path of a container is that mounts it."""
    return _inside(mount.get("subPath", ""), path.rstrip("/").removeprefix(mount["mountPath"].rstrip("/")))


def mount_error(repository: Repository, mount: Mapping[str, Any]) -> str | None:
    """What the runtime says of a folder that is not in the image; None where it is."""
    folder = mount.get("subPath", "")
    known = repository.weights.folder if repository.weights is not None else "/"
    if not folder or known == _inside(folder) or known.startswith(f"{_inside(folder)}/"):
        return None
    return (
        f'failed to generate container spec: failed to apply image volume "{mount["name"]}": failed to stat sub path '
        f'"{folder}": no such file or directory'
    )


def _inside(*parts: str) -> str:
    return "/" + "/".join(part.strip("/") for part in parts if part.strip("/"))
