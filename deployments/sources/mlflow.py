"""Models of an MLflow registry: which artifact an entry stands for. Pure; whoever calls brings the HTTP.

`models:/name/version`, `models:/name@alias`, `models:/name/latest`, `models:/m-id` (a logged model). KServe loads none
of these, so an entry is resolved to the address of its artifact, which then counts as the source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode

API = "/api/2.0/mlflow"
LATER = "You can go on: it is looked up again before anything starts."
_NAME, _ALIAS = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", r"[A-Za-z][A-Za-z0-9_.-]{0,63}"
_ENTRY = re.compile(rf"models:/(?P<name>{_NAME})(?:/(?P<version>[A-Za-z0-9]{{1,40}})|@(?P<alias>{_ALIAS}))")
_LOGGED = re.compile(r"models:/(?P<id>m-[A-Za-z0-9]{1,64})")


@dataclass(frozen=True)
class Entry:
    """An address of the registry taken apart: a version, an alias or “latest” of a name, or a logged model's id."""

    name: str = ""
    version: str = ""
    alias: str = ""
    id: str = ""


def parse_entry(uri: str) -> Entry:
    """Take `models:/…` apart; ValueError, in words for people."""
    if logged := _LOGGED.fullmatch(uri):
        return Entry(id=logged["id"])
    match = _ENTRY.fullmatch(uri)
    if match is None:
        raise ValueError("A model of MLflow is written models:/name/version or models:/name@alias.")
    return Entry(match["name"], match["version"] or "", match["alias"] or "")


def resolve(uri: str, ask: Ask, server: str) -> SourceCheck:
    """The artifact of an entry: a check whose `loads` is its address, or says why there is none."""
    entry = parse_entry(uri)
    base = server.rstrip("/") + API

    def get(path: str, **query: str) -> Reply:
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return ask(f"{base}{path}" + (f"?{text}" if text else ""))

    if entry.id:
        reply = get(f"/logged-models/{entry.id}")
        return _artifact(uri, reply, _at(reply.json, "model", "info", "artifact_uri"))
    version = entry.version
    if entry.alias:
        reply = get("/registered-models/alias", name=entry.name, alias=entry.alias)
        version = str(_at(reply.json, "model_version", "version") or "")
    elif not version.isdecimal():
        stage = {} if version == "latest" else {"stages": version}
        reply = get("/registered-models/get-latest-versions", name=entry.name, **stage)
        listed = _at(reply.json, "model_versions")
        numbers = [str(item.get("version")) for item in listed or () if isinstance(item, Mapping)]
        version = max((item for item in numbers if item.isdecimal() and len(item) < 10), key=int, default="")
    else:
        reply = Reply(200)
    if reply.status != 200:
        return _refused(uri, reply)
    if not version.isdecimal():
        return SourceCheck(
            SourceCode.NOT_FOUND, f"MLflow has no version for {uri}.", "Check name and version, or the alias."
        )
    reply = get("/model-versions/get-download-uri", name=entry.name, version=version)
    return _artifact(uri, reply, _at(reply.json, "artifact_uri"))


def _artifact(uri: str, reply: Reply, found: Any) -> SourceCheck:
    if reply.status != 200:
        return _refused(uri, reply)
    if not isinstance(found, str) or not found or len(found) > 512:
        return SourceCheck(SourceCode.UNUSABLE, f"MLflow names no artifact for {uri}.", "Choose another version.")
    scheme = found.partition(":")[0]
    if scheme == "mlflow-artifacts":
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"The artifact of {uri} is kept behind MLflow's own server, from where the cluster loads nothing.",
            "Register it with an artifact store that is a bucket, as s3:// or gs://.",
        )
    if scheme in {"dbfs", "runs", "file"} or found.startswith("/"):
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"The artifact of {uri} is on {'a disk' if scheme not in {'dbfs', 'runs'} else scheme}: "
            "the cluster cannot reach it.",
            "Register it with an artifact store that is a bucket, as s3:// or gs://.",
        )
    return SourceCheck(SourceCode.FOUND, f"{uri} is {found}.", "", None, found)


def _refused(uri: str, reply: Reply) -> SourceCheck:
    code = _at(reply.json, "error_code")
    if reply.status == 404 or code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
        return SourceCheck(SourceCode.NOT_FOUND, f"MLflow has no {uri}.", "Check name and version, or the alias.")
    if reply.status in {401, 403}:
        return SourceCheck(
            SourceCode.UNUSABLE,
            "MLflow asks for a login, and Slipway asks it without one.",
            "Name the artifact itself, as s3://… or gs://…, with a credential of the team.",
        )
    return SourceCheck(SourceCode.UNREACHABLE, f"MLflow could not be asked ({reply.said}).", LATER)


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
