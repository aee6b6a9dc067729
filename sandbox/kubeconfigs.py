"""Kubeconfig files: where a cluster is, and the token of the one who reads them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml


def kubeconfig(url: str, authority: bytes | None, user: str, token: str) -> dict[str, Any]:
    """A kubeconfig with one context; `authority` is the certificate, PEM, that signed the server's."""
    cluster: dict[str, Any] = {"server": url}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user}}],
        "current-context": "sandbox",
    }


def write_kubeconfig(path: Path, config: dict[str, Any]) -> None:
    """Replace a file, readable by its owner alone, in one step, so that no reader ever sees half of it."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.chmod(0o600)
    fresh.write_text(yaml.safe_dump(config, sort_keys=False))
    fresh.replace(path)
