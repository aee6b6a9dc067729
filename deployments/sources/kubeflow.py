"""Models of a Kubeflow Model Registry: which artifact an entry stands for. Pure; whoever calls brings the HTTP.

`model-registry://name/version`. KServe needs an add-on to load these, and then takes few kinds of artifacts; so an
entry is resolved to the address of its newest artifact, which then counts as the source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode

API = "/api/model_registry/v1alpha3"
PREFIX = "model-registry://"
LATER = "You can go on: it is looked up again before anything starts."
_ENTRY = re.compile(
    r"model-registry://(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,127})/(?P<version>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"
)
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def parse_entry(uri: str) -> tuple[str, str]:
    """Name and version of an address; ValueError, in words for people."""
    match = _ENTRY.fullmatch(uri)
    if match is None:
        raise ValueError("An entry of the registry is written model-registry://name/version.")
    return match["name"], match["version"]


def resolve(uri: str, ask: Ask, server: str) -> SourceCheck:
    """The newest artifact of a version: a check whose `loads` is its address, or says why there is none."""
    name, version = parse_entry(uri)
    base = server.rstrip("/") + API
    model = ask(f"{base}/registered_model?name={quote(name, safe='')}")
    if model.status != 200:
        return _refused(f"no model “{name}”", model)
    found = _id_of(model.json)
    entry = ask(f"{base}/model_version?name={quote(version, safe='')}&parentResourceId={quote(found, safe='')}")
    if entry.status != 200:
        return _refused(f"no version “{version}” of {name}", entry)
    newest = "orderBy=CREATE_TIME&sortOrder=DESC&pageSize=1"
    listed = ask(f"{base}/model_versions/{_id_of(entry.json)}/artifacts?{newest}")
    if listed.status != 200:
        return _refused(f"no artifacts of {name}/{version}", listed)
    items = listed.json.get("items") if isinstance(listed.json, Mapping) else None
    first = items[0] if isinstance(items, list) and items and isinstance(items[0], Mapping) else {}
    address = first.get("uri")
    if not isinstance(address, str) or not address or len(address) > 512:
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"The registry names no artifact for {uri}.",
            "Register one, or choose another version.",
        )
    return SourceCheck(SourceCode.FOUND, f"{uri} is {address}.", "", None, address)


def _id_of(value: Any) -> str:
    found = str(value.get("id") or "") if isinstance(value, Mapping) else ""
    return found if _ID.fullmatch(found) else "-"


def _refused(what: str, reply: Reply) -> SourceCheck:
    if reply.status == 404:
        return SourceCheck(SourceCode.NOT_FOUND, f"The registry has {what}.", "Check name and version.")
    if reply.status in {401, 403}:
        return SourceCheck(
            SourceCode.UNUSABLE,
            "The registry asks for a login, and Slipway asks it without one.",
            "Name the artifact itself, as s3://… or gs://…, with a credential of the team.",
        )
    return SourceCheck(SourceCode.UNREACHABLE, f"The registry could not be asked ({reply.said}).", LATER)
